//! The JSON paths of printer columns and selectable fields: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`.
//! Follows `k8s.io/client-go/util/jsonpath` as far as definitions use it.

use apimachinery::Value;

/// A longer path is none.
const STEPS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// From, to and step of `[1:3]`.
    Slice(Option<i64>, Option<i64>, i64),
    Wildcard,
    /// `..name`
    Descend(String),
    /// `[?(@.type=="Ready")]`
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Absent for a test of existence.
    test: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// Below the item.
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no JSON path: {why}")]
pub struct ParseError {
    path: String,
    why: &'static str,
}

impl JsonPath {
    pub fn parse(path: &str) -> Result<JsonPath, ParseError> {
        let text = path.trim();
        let text = text.strip_prefix('$').unwrap_or(text);
        let mut parser = Parser { rest: text };
        let failed = |why| ParseError { path: path.to_owned(), why };
        let steps = parser.steps().map_err(failed)?;
        if parser.rest.is_empty() { Ok(JsonPath(steps)) } else { Err(failed("unexpected character")) }
    }

    /// The names of the fields that the path goes through, as far as it goes through nothing else.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// All values at the path; what is missing gives none.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        walk(&self.0, root)
    }
}

fn walk<'v>(steps: &[Step], root: &'v Value) -> Vec<&'v Value> {
    steps
        .iter()
        .fold(vec![root], |found, step| found.into_iter().flat_map(|value| take(step, value)).collect())
}

fn take<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let items = || value.as_array().map_or(&[][..], Vec::as_slice);
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let at = if *index < 0 { index + items().len() as i64 } else { *index };
            usize::try_from(at).ok().and_then(|at| items().get(at)).into_iter().collect()
        }
        Step::Slice(from, to, step) => slice(items(), *from, *to, *step),
        Step::Wildcard => children(value),
        Step::Descend(name) => {
            let below =
                children(value).into_iter().flat_map(|child| take(&Step::Descend(name.clone()), child));
            value.get(name).into_iter().chain(below).collect()
        }
        Step::Filter(filter) => items().iter().filter(|item| filter.admits(item)).collect(),
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let length = items.len() as i64;
    let clamp =
        |at: i64| usize::try_from(if at < 0 { at + length } else { at }.clamp(0, length)).unwrap_or_default();
    let (from, to) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(length)));
    let step = usize::try_from(step).unwrap_or(1).max(1);
    items.get(from..to).unwrap_or_default().iter().step_by(step).collect()
}

impl Filter {
    fn admits(&self, item: &Value) -> bool {
        let values = |operand: &Operand| -> Vec<Value> {
            match operand {
                Operand::Literal(value) => vec![value.clone()],
                Operand::Path(steps) => walk(steps, item).into_iter().cloned().collect(),
            }
        };
        let left = values(&self.left);
        let Some((comparison, right)) = &self.test else { return !left.is_empty() };
        match (left.first(), values(right).first()) {
            (Some(left), Some(right)) => comparison.holds(left, right),
            _ => false,
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let ordering = match (left, right) {
            (Value::String(a), Value::String(b)) => a.partial_cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.partial_cmp(b),
            _ => left.as_f64().zip(right.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        };
        match self {
            Comparison::Equal => left == right || ordering.is_some_and(|o| o.is_eq()),
            Comparison::NotEqual => left != right && ordering.is_none_or(|o| o.is_ne()),
            Comparison::Less => ordering.is_some_and(|o| o.is_lt()),
            Comparison::LessOrEqual => ordering.is_some_and(|o| o.is_le()),
            Comparison::Greater => ordering.is_some_and(|o| o.is_gt()),
            Comparison::GreaterOrEqual => ordering.is_some_and(|o| o.is_ge()),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    /// Everything before one of these, or the end.
    fn until(&mut self, ends: &[char]) -> &'t str {
        let at = self.rest.find(ends).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(at);
        self.rest = rest;
        text
    }

    fn steps(&mut self) -> Result<Vec<Step>, &'static str> {
        let mut steps = Vec::new();
        loop {
            if steps.len() > STEPS_MAX {
                return Err("it has too many steps");
            }
            if self.eat("..") {
                steps.push(Step::Descend(self.name()?));
            } else if self.eat(".[") || self.eat("[") {
                steps.push(self.bracket()?);
            } else if self.eat(".*") {
                steps.push(Step::Wildcard);
            } else if self.rest == "." {
                self.rest = "";
            } else if self.eat(".") {
                steps.push(Step::Field(self.name()?));
            } else {
                return Ok(steps);
            }
        }
    }

    /// A name up to what cannot be part of one; `\` takes the next character as it is.
    fn name(&mut self) -> Result<String, &'static str> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | ')' | ' ' | '=' | '!' | '<' | '>' | '{' | '}' | '$' | '@' | ',' | '\''
                | '"' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err("a name is missing") } else { Ok(name) }
    }

    fn bracket(&mut self) -> Result<Step, &'static str> {
        if self.eat("?(") {
            let filter = self.filter()?;
            return if self.eat(")]") { Ok(Step::Filter(filter)) } else { Err("a filter does not end") };
        }
        let step = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                self.rest = &self.rest[1..];
                let name = self.until(&[quote]);
                self.rest = self.rest.get(1..).ok_or("a quoted name does not end")?;
                Step::Field(name.to_owned())
            }
            _ => index(self.until(&[']']))?,
        };
        if self.eat("]") { Ok(step) } else { Err("a bracket does not end") }
    }

    fn filter(&mut self) -> Result<Filter, &'static str> {
        const COMPARISONS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let left = self.operand()?;
        self.rest = self.rest.trim_start();
        let found = COMPARISONS.into_iter().find(|(token, _)| self.eat(token));
        let test = match found {
            Some((_, comparison)) => Some((comparison, self.operand()?)),
            None => None,
        };
        self.rest = self.rest.trim_start();
        Ok(Filter { left, test })
    }

    fn operand(&mut self) -> Result<Operand, &'static str> {
        self.rest = self.rest.trim_start();
        if self.eat("@") {
            return Ok(Operand::Path(self.steps()?));
        }
        if let Some(quote @ ('\'' | '"')) = self.rest.chars().next() {
            self.rest = &self.rest[1..];
            let text = self.until(&[quote]);
            self.rest = self.rest.get(1..).ok_or("a text does not end")?;
            return Ok(Operand::Literal(text.into()));
        }
        let text = self.until(&[')', ' ', '=', '!', '<', '>']);
        serde_json::from_str(text).map(Operand::Literal).map_err(|_| "a filter compares with no value")
    }
}

/// `*`, `3`, `-1`, `1:3`
fn index(text: &str) -> Result<Step, &'static str> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| "an index is no number");
    let optional = |text: Option<&str>| text.filter(|t| !t.trim().is_empty()).map(number).transpose();
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if !text.contains(':') {
        return number(text).map(Step::Index);
    }
    let mut parts = text.split(':');
    Ok(Step::Slice(optional(parts.next())?, optional(parts.next())?, optional(parts.next())?.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, expect: Value) {
        let object = json!({"spec": {"replicas": 3, "a.b": "dotted", "list": [1, 2, 3]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Old", "status": "False", "n": 5}]}});
        let path = JsonPath::parse(path).expect("is a path");
        assert_eq!(json!(path.find(&object)), expect);
    }

    #[test]
    fn paths_find_what_they_name() {
        check(".spec.replicas", json!([3]));
        check("$.spec.replicas", json!([3]));
        check(".spec['a.b']", json!(["dotted"]));
        check(".spec.a\\.b", json!(["dotted"]));
        check(".spec.missing.deep", json!([]));
        check(".spec.list[0]", json!([1]));
        check(".spec.list[-1]", json!([3]));
        check(".spec.list[1:]", json!([2, 3]));
        check(".spec.list[*]", json!([1, 2, 3]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.n > 2)].type", json!(["Old"]));
        check(".status.conditions[?(@.type)].n", json!([1, 5]));
        check("..replicas", json!([3]));
    }

    #[test]
    fn the_fields_of_a_path_end_where_it_may_branch() {
        let fields = |path| JsonPath::parse(path).expect("is a path").fields().collect::<Vec<_>>().join("/");
        assert_eq!(fields(".spec['a.b'].c"), "spec/a.b/c");
        assert_eq!(fields(".status.conditions[?(@.a==1)].b"), "status/conditions");
        assert_eq!([fields("..a"), fields(".*.a")], ["", ""]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["spec", ".spec[", ".spec[x]", ".a[?(@.b]", ".a['b"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[.a\\[\\]'?()@=*:0-9$\\\\ ]{0,20}|.{0,12}") {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [{"a": 1}]}));
            }
        }
    }
}
