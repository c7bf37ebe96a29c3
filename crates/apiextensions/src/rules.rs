//! The rules a schema gives its values in CEL (`x-kubernetes-validations`): which of them apply where, to which former
//! value, within which budget, and how their failure is told. Follows `pkg/apiserver/schema/cel.Validator`.
//!
//! What an expression means is not known here: a [`Program`] says so, such as [`crate::expression`] makes.

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, ErrorType, Path};

use crate::fieldpath;
use crate::listtype;
use crate::structural::{ListType, Rule, Structural};

/// What all rules of one object may cost together (upstream: `RuntimeCELCostBudget`).
pub const BUDGET: u64 = 10_000_000;

/// A longer message of a `messageExpression` is not taken (upstream: `MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 << 10;

const EXHAUSTED: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Said instead of looking at rules while an object is not even of the types they are about.
pub fn unchecked(errors: &ErrorList) -> Option<Error> {
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let blocks =
        |error: &Error| matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
               complete validation";
    errors.iter().any(blocks).then(|| Error::invalid(&Path::new(""), Value::Null, why))
}

/// What `oldSelf` is for one evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Old<'v> {
    /// Not to be named, or not there.
    Undefined,
    Value(&'v Value),
    /// An optional, for rules with `optionalOldSelf`.
    Optional(Option<&'v Value>),
}

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    pub cost: u64,
    pub result: Result<Value, Failure>,
}

/// Why an evaluation came to nothing, in the evaluator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    NoSuchOverload(String),
    /// This one call took more than a call may.
    CostLimit(String),
    Other(String),
}

/// A compiled expression.
pub trait Program: Send + Sync {
    fn uses_old_self(&self) -> bool;
    /// `this` is a value of the node that the expression was compiled for.
    fn eval(&self, this: &Value, old: Old<'_>) -> Evaluated;
}

/// What an expression is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    pub node: &'s Structural,
    /// It has what every object has.
    pub is_root: bool,
    /// Its former value is an optional.
    pub has_optional_old: bool,
}

/// Makes the program of an expression.
pub type Compile<'c> = &'c dyn Fn(&str, &Subject<'_>) -> Result<Box<dyn Program>, String>;

struct Compiled {
    rule: Rule,
    program: Result<Box<dyn Program>, String>,
    message: Option<Box<dyn Program>>,
    /// Where below the value a mistake is told, if elsewhere.
    field: Option<String>,
}

/// The rules of a node and of those below it; made where there are any.
pub struct Rules {
    own: Vec<Compiled>,
    /// Those that stand in `allOf`, which hold for the same value.
    all_of: Vec<Rules>,
    properties: BTreeMap<Box<str>, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

impl Rules {
    /// The rules of a resource's schema; none when it has none.
    pub fn new(schema: &Structural, compile: Compile<'_>) -> Option<Rules> {
        Rules::of(schema, schema, true, compile)
    }

    /// `said` has the rules, `node` the types they are about.
    fn of(said: &Structural, node: &Structural, is_root: bool, compile: Compile<'_>) -> Option<Rules> {
        let below = |said: &Structural, node: &Structural| Rules::of(said, node, node.embedded, compile);
        let own: Vec<Compiled> =
            said.rules.iter().map(|rule| compiled(rule, node, is_root, compile)).collect();
        let properties: BTreeMap<Box<str>, Rules> = said
            .properties
            .iter()
            .filter_map(|(name, said)| Some((name.into(), below(said, node.properties.get(name)?)?)))
            .collect();
        let additional = said.additional.schema().zip(node.additional.schema());
        let additional = additional.and_then(|(said, node)| below(said, node)).map(Box::new);
        let items = said.items.as_deref().zip(node.items.as_deref());
        let items = items.and_then(|(said, node)| below(said, node)).map(Box::new);
        let nested = said.checks.as_deref().map_or(&[][..], |checks| &checks.all_of);
        let all_of: Vec<Rules> =
            nested.iter().filter_map(|said| Rules::of(said, node, is_root, compile)).collect();
        let is_empty = own.is_empty() && properties.is_empty() && all_of.is_empty();
        (!is_empty || additional.is_some() || items.is_some()).then_some(Rules {
            own,
            all_of,
            properties,
            additional,
            items,
        })
    }

    /// The rules that `object` breaks. Of those broken before, and not about change, it is only warned.
    pub fn check(&self, schema: &Structural, object: &Value, old: Option<&Value>) -> Findings {
        let mut run = Run { left: BUDGET, is_over: false, findings: Findings::default() };
        run.node(self, schema, &Path::new(""), object, old, old == Some(object));
        run.findings
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Findings {
    pub errors: ErrorList,
    pub warnings: Vec<String>,
}

fn compiled(rule: &Rule, node: &Structural, is_root: bool, compile: Compile<'_>) -> Compiled {
    let subject = Subject { node, is_root, has_optional_old: rule.optional_old_self.unwrap_or_default() };
    let message = (!rule.message_expression.is_empty())
        .then(|| compile(&rule.message_expression, &subject).ok())
        .flatten();
    let field = (!rule.field_path.is_empty()).then(|| fieldpath::read(&rule.field_path, node).ok()).flatten();
    Compiled { rule: rule.clone(), program: compile(&rule.rule, &subject), message, field }
}

struct Run {
    left: u64,
    /// Nothing more is looked at.
    is_over: bool,
    findings: Findings,
}

impl Run {
    fn error(&mut self, error: Error) {
        self.findings.errors.push(error);
    }

    fn end(&mut self, error: Error) {
        self.error(error);
        self.is_over = true;
    }

    /// False when the budget does not reach.
    fn pay(&mut self, cost: u64) -> bool {
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or_default();
        left.is_some()
    }

    /// `unchanged` says that the value, or the nearest one above it that can be told, is what it was.
    fn node(
        &mut self,
        rules: &Rules,
        schema: &Structural,
        path: &Path,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
    ) {
        if value.is_null() || self.is_over {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for compiled in &rules.own {
            self.rule(compiled, schema, path, value, old, unchanged);
            if self.is_over {
                return;
            }
        }
        for rules in &rules.all_of {
            self.node(rules, schema, path, value, old, unchanged);
        }
        match value {
            Value::Array(items) => self.items(rules, schema, path, items, old, unchanged),
            Value::Object(fields) => {
                for (name, value) in fields {
                    let before = old.and_then(|old| old.get(name));
                    let unchanged = before.map_or(unchanged, |before| before == value);
                    if let (Some(rules), Some(schema)) =
                        (rules.properties.get(&**name), schema.properties.get(name))
                    {
                        self.node(rules, schema, &path.child(name), value, before, unchanged);
                    } else if let (Some(rules), Some(schema)) =
                        (&rules.additional, schema.additional.schema())
                    {
                        self.node(rules, schema, &path.key(name), value, before, unchanged);
                    }
                }
            }
            _ => {}
        }
    }

    fn items(
        &mut self,
        rules: &Rules,
        schema: &Structural,
        path: &Path,
        items: &[Value],
        old: Option<&Value>,
        unchanged: bool,
    ) {
        let (Some(rules), Some(item)) = (&rules.items, &schema.items) else { return };
        let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, value) in items.iter().enumerate() {
            let old = match &schema.list {
                ListType::Map(keys) => {
                    let key = listtype::key(value, keys);
                    before.iter().find(|old| listtype::key(old, keys) == key)
                }
                ListType::Atomic | ListType::Set => None,
            };
            let unchanged = old.map_or(unchanged, |old| old == value);
            self.node(rules, item, &path.index(index), value, old, unchanged);
        }
    }

    fn rule(
        &mut self,
        compiled: &Compiled,
        schema: &Structural,
        path: &Path,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
    ) {
        let Compiled { rule, program, .. } = compiled;
        let ty = schema.ty.name();
        let program = match program {
            Ok(program) => program,
            Err(why) => return self.error(Error::invalid(path, ty, format!("rule compile error: {why}"))),
        };
        let optional = rule.optional_old_self.unwrap_or_default();
        if program.uses_old_self() && old.is_none() && !optional {
            return;
        }
        let old = match (optional, old) {
            (true, old) => Old::Optional(old),
            (false, Some(old)) => Old::Value(old),
            (false, None) => Old::Undefined,
        };
        let Evaluated { cost, result } = program.eval(value, old);
        if !self.pay(cost) {
            return self.end(Error::invalid(path, ty, EXHAUSTED));
        }
        match result {
            Ok(Value::Bool(true)) => {}
            Ok(_) => self.broken(compiled, schema, path, value, old, unchanged && !program.uses_old_self()),
            Err(failure) => self.failed(rule, failure, path, ty),
        }
    }

    fn failed(&mut self, rule: &Rule, failure: Failure, path: &Path, ty: &str) {
        let said = shown(rule);
        match failure {
            Failure::NoSuchOverload(why) => self.error(Error::invalid(path, ty, format!(
                "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {said}"
            ))),
            Failure::CostLimit(why) => self.end(Error::invalid(path, ty, format!(
                "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {said}"
            ))),
            Failure::Other(why) => self.error(Error::invalid(path, ty, format!("{why} evaluating rule: {said}"))),
        }
    }

    fn broken(
        &mut self,
        compiled: &Compiled,
        schema: &Structural,
        path: &Path,
        value: &Value,
        old: Old<'_>,
        forgiven: bool,
    ) {
        let rule = &compiled.rule;
        let path = compiled.field.as_ref().map_or_else(|| path.clone(), |field| path.child(field));
        let detail = match self.message(compiled, value, old) {
            Ok(Some(message)) => message,
            Ok(None) if rule.message.is_empty() => format!("failed rule: {}", shown(rule)),
            Ok(None) => rule.message.trim().to_owned(),
            Err(why) => return self.end(Error::invalid(&path, schema.ty.name(), why)),
        };
        let omits = matches!(schema.ty.name(), "object" | "array");
        let bad_value = (!omits).then(|| value.clone());
        let error = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => Error::forbidden(&path, detail),
            Some("FieldValueRequired") => Error::required(&path, detail),
            Some("FieldValueDuplicate") => Error { bad_value, ..Error::duplicate(&path, Value::Null) },
            _ => Error { bad_value, ..Error::invalid(&path, Value::Null, detail) },
        };
        match forgiven {
            true => self.findings.warnings.push(error.to_string()),
            false => self.error(error),
        }
    }

    /// What the rule's `messageExpression` says; none where it cannot be used. An error ends everything.
    fn message(
        &mut self,
        compiled: &Compiled,
        value: &Value,
        old: Old<'_>,
    ) -> Result<Option<String>, String> {
        let Some(program) = &compiled.message else { return Ok(None) };
        let Evaluated { cost, result } = program.eval(value, old);
        if !self.pay(cost) {
            return Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules will \
                 be run"
                    .to_owned(),
            );
        }
        match result {
            Err(Failure::CostLimit(_)) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                compiled.rule.message_expression
            )),
            Ok(Value::String(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                Ok(fits.then(|| text.to_owned()))
            }
            _ => Ok(None),
        }
    }
}

/// How a rule is named in messages.
fn shown(rule: &Rule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    /// Understands `FIELD<=NUMBER` of itself, `grows` over its former value, `costly`, and texts in quotes.
    struct Toy(String);

    impl Program for Toy {
        fn uses_old_self(&self) -> bool {
            self.0 == "grows"
        }

        fn eval(&self, this: &Value, old: Old<'_>) -> Evaluated {
            let number = |value: &Value| value.as_i64().unwrap_or_default();
            let result = match (self.0.as_str(), old) {
                ("grows", Old::Value(old)) => Ok(json!(number(this) >= number(old))),
                ("grows", Old::Optional(old)) => {
                    Ok(json!(old.is_some_and(|old| number(this) >= number(old))))
                }
                ("costly", _) => return Evaluated { cost: BUDGET + 1, result: Ok(json!(true)) },
                ("clueless", _) => Err(Failure::NoSuchOverload("no such overload".to_owned())),
                (text, _) if text.starts_with('"') => Ok(json!(text.trim_matches('"'))),
                (text, _) => {
                    let (field, most) = text.split_once("<=").expect("a comparison");
                    let value = if field == "self" { this } else { &this[field] };
                    Ok(json!(number(value) <= most.parse().expect("a number")))
                }
            };
            Evaluated { cost: 1, result }
        }
    }

    fn compile(text: &str, _: &Subject<'_>) -> Result<Box<dyn Program>, String> {
        if text == "broken" { Err("no".to_owned()) } else { Ok(Box::new(Toy(text.to_owned()))) }
    }

    fn check(spec: Value, object: Value, old: Option<Value>) -> (Vec<String>, Vec<String>) {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": spec}}));
        let rules = Rules::new(&schema, &compile).expect("has rules");
        let old = old.map(|old| json!({"spec": old}));
        let findings = rules.check(&schema, &json!({"spec": object}), old.as_ref());
        (findings.errors.iter().map(ToString::to_string).collect(), findings.warnings)
    }

    #[track_caller]
    fn expect(spec: Value, object: Value, old: Option<Value>, errors: &[&str]) {
        assert_eq!(check(spec, object, old).0, errors);
    }

    fn rules(rules: Value) -> Value {
        json!({"type": "integer", "x-kubernetes-validations": rules})
    }

    #[test]
    fn broken_rules_are_told_in_upstreams_words() {
        expect(rules(json!([{"rule": "self<=3"}])), json!(3), None, &[]);
        expect(
            rules(json!([{"rule": "self<=3"}])),
            json!(4),
            None,
            &["spec: Invalid value: 4: failed rule: self<=3"],
        );
        expect(
            rules(json!([{"rule": "self<=3", "message": "too much"}])),
            json!(4),
            None,
            &["spec: Invalid value: 4: too much"],
        );
        let reason = json!([{"rule": "self<=3", "reason": "FieldValueForbidden", "messageExpression": "\"not so much\""}]);
        expect(rules(reason), json!(4), None, &["spec: Forbidden: not so much"]);
        expect(
            rules(json!([{"rule": "broken"}])),
            json!(4),
            None,
            &["spec: Invalid value: \"integer\": rule compile error: no"],
        );
        let clueless = "spec: Invalid value: \"integer\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: clueless";
        expect(rules(json!([{"rule": "clueless"}])), json!(4), None, &[clueless]);
        let object = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "a<=1", "fieldPath": ".a"}]});
        expect(object, json!({"a": 2}), None, &["spec.a: Invalid value: failed rule: a<=1"]);
    }

    #[test]
    fn rules_wait_for_an_object_of_the_right_types() {
        let path = Path::new("spec");
        assert_eq!(unchecked(&vec![Error::invalid(&path, 1, "")]), None);
        let error = unchecked(&vec![Error::required(&path, "")]).expect("is said");
        assert!(
            error
                .to_string()
                .starts_with("<nil>: Invalid value: null: some validation rules were not checked")
        );
    }

    #[test]
    fn the_budget_ends_everything() {
        let both = json!([{"rule": "costly"}, {"rule": "self<=0"}]);
        expect(rules(both), json!(4), None, &[&format!("spec: Invalid value: \"integer\": {EXHAUSTED}")]);
    }

    #[test]
    fn transitions_need_a_former_value_unless_it_is_optional() {
        expect(rules(json!([{"rule": "grows"}])), json!(4), None, &[]);
        expect(
            rules(json!([{"rule": "grows"}])),
            json!(4),
            Some(json!(5)),
            &["spec: Invalid value: 4: failed rule: grows"],
        );
        let optional = json!([{"rule": "grows", "optionalOldSelf": true}]);
        expect(rules(optional), json!(4), None, &["spec: Invalid value: 4: failed rule: grows"]);
        let list = |list_type: &str| {
            json!({"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"n": rules(json!([{"rule": "grows"}]))}}})
        };
        let (old, new) = (json!([{"k": "a", "n": 2}, {"k": "b", "n": 9}]), json!([{"k": "b", "n": 3}]));
        expect(
            list("map"),
            new.clone(),
            Some(old.clone()),
            &["spec[0].n: Invalid value: 3: failed rule: grows"],
        );
        expect(list("atomic"), new, Some(old), &[]);
    }

    #[test]
    fn what_was_broken_before_is_only_warned_of() {
        let schema = json!({"type": "object", "properties": {"a": rules(json!([{"rule": "self<=1"}])), "b": {"type": "integer"}}});
        let (errors, warnings) = check(schema, json!({"a": 5, "b": 2}), Some(json!({"a": 5, "b": 1})));
        assert_eq!(
            (errors.len(), &warnings[..]),
            (0, &["spec.a: Invalid value: 5: failed rule: self<=1".to_owned()][..])
        );
    }
}
