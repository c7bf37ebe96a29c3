//! Expressions of a schema's rules: `self` and `oldSelf` have the types that the schema gives them. Follows
//! the apiextensions server's `cel.compileRule`.

use apimachinery::Value;
use cel::{Bindings, Env, EvalError, Extent, PER_CALL_LIMIT, Shape, Type, Val};

use crate::declare::declare;
use crate::rules::{Evaluated, Failure, Old, Program, Subject};

/// The type that values with rules have; those within it are named after it.
const SELF_TYPE: &str = "selfType";
const SELF: &str = "self";
const OLD_SELF: &str = "oldSelf";

/// Makes the program of an expression, or says what is wrong with it in cel-go's words.
pub fn compile(text: &str, subject: &Subject<'_>) -> Result<Box<dyn Program>, String> {
    expression(text, subject).map(|expression| Box::new(expression) as Box<dyn Program>)
}

fn expression(text: &str, subject: &Subject<'_>) -> Result<Expression, String> {
    let declared = declare(subject.node, subject.is_root, SELF_TYPE)
        .ok_or("schema type is not supported: the type of the value is not known")?;
    let of = declared.of;
    let old = if subject.has_optional_old { Type::optional(of.clone()) } else { of.clone() };
    let program = Env::new().with(SELF, of).with(OLD_SELF, old).compile(text);
    program.map(|program| Expression { program, shape: declared.shape }).map_err(|why| why.to_string())
}

/// What is known of a rule before there are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub uses_old_self: bool,
    pub cost_max: u64,
}

/// Checks a rule, or says what is wrong with it. `extent` is that of the values it is about.
pub fn check_rule(text: &str, subject: &Subject<'_>, extent: &Extent) -> Result<Checked, String> {
    let expression = expression(text, subject).map_err(|why| format!("compilation failed: {why}"))?;
    match expression.program.of() {
        Type::Bool => {
            Ok(Checked { uses_old_self: expression.uses_old_self(), cost_max: expression.cost_max(extent) })
        }
        _ => Err("cel expression must evaluate to a bool".to_owned()),
    }
}

/// What a message's expression costs at most, or what is wrong with it.
pub fn check_message(text: &str, subject: &Subject<'_>, extent: &Extent) -> Result<u64, String> {
    let expression =
        expression(text, subject).map_err(|why| format!("messageExpression compilation failed: {why}"))?;
    match expression.program.of() {
        Type::String => Ok(expression.cost_max(extent)),
        _ => Err("messageExpression must evaluate to a string".to_owned()),
    }
}

struct Expression {
    program: cel::Program,
    /// How it sees its values.
    shape: Shape,
}

impl Expression {
    fn cost_max(&self, extent: &Extent) -> u64 {
        self.program.cost_max(&[(SELF, extent.clone()), (OLD_SELF, extent.clone())])
    }
}

impl Program for Expression {
    fn uses_old_self(&self) -> bool {
        self.program.reads(OLD_SELF)
    }

    fn eval(&self, this: &Value, old: Old<'_>) -> Evaluated {
        let shaped = |value| Val::shaped(value, &self.shape);
        let bindings = Bindings::new().set(SELF, shaped(this));
        let bindings = match old {
            Old::Undefined => bindings,
            Old::Value(old) => bindings.set(OLD_SELF, shaped(old)),
            Old::Optional(None) => bindings.set(OLD_SELF, Val::Optional(None)),
            Old::Optional(Some(old)) => bindings.set(OLD_SELF, Val::some(shaped(old))),
        };
        let evaluated = self.program.evaluate(&bindings, PER_CALL_LIMIT);
        let result = evaluated.result.map_err(failure).and_then(|value| {
            let json = value.to_json();
            json.ok_or_else(|| Failure::Other(format!("no JSON form of type {}", value.type_name())))
        });
        Evaluated { cost: evaluated.cost, result }
    }
}

fn failure(error: EvalError) -> Failure {
    let said = error.to_string();
    match error {
        EvalError::NoSuchOverload => Failure::NoSuchOverload(said),
        EvalError::CostLimit => Failure::CostLimit(said),
        EvalError::Failed(_) => Failure::Other(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Structural;
    use crate::rules::Rules;
    use apimachinery::json;

    /// What the rules of `spec` say of a custom object.
    fn broken(spec: Value, new: Value, old: Option<Value>) -> Vec<String> {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": spec}}));
        let rules = Rules::new(&schema, &compile).expect("has rules");
        let object = |spec: Value| json!({"kind": "A", "metadata": {"name": "n"}, "spec": spec});
        let findings = rules.check(&schema, &object(new), old.map(object).as_ref());
        findings.errors.iter().map(ToString::to_string).collect()
    }

    fn spec(rule: Value) -> Value {
        json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "share": {"type": "number"},
            "at": {"type": "string", "format": "date-time"}, "port": {"x-kubernetes-int-or-string": true},
            "names": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}})
    }

    #[track_caller]
    fn expect(rule: &str, new: Value, complaints: &[&str]) {
        assert_eq!(broken(spec(json!({"rule": rule})), new, None), complaints, "{rule}");
    }

    #[test]
    fn values_have_the_types_that_the_schema_gives_them() {
        expect("self.min <= self.max", json!({"min": 1, "max": 2}), &[]);
        let failed = "spec: Invalid value: failed rule: self.min <= self.max";
        expect("self.min <= self.max", json!({"min": 3, "max": 2}), &[failed]);
        expect("self.share / 2.0 == 0.5", json!({"share": 1}), &[]);
        expect("self.at > timestamp('2024-01-01T00:00:00Z')", json!({"at": "2025-01-01T00:00:00Z"}), &[]);
        expect(
            "type(self.port) == int ? self.port > 0 : self.port.endsWith('%')",
            json!({"port": "3%"}),
            &[],
        );
        expect("self.names.all(n, n in self.labels)", json!({"names": ["a"], "labels": {"a": ""}}), &[]);
    }

    #[test]
    fn values_are_compared_as_their_schema_has_them() {
        let with = |rule: &str, new: Value| {
            let spec = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
                "gone": {"type": "string", "nullable": true},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "times": {"type": "array", "items": {"type": "string", "format": "date-time"}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                    "items": {"type": "object", "properties": {"n": {"type": "integer"}, "v": {"type": "string"}}}}}});
            broken(spec, new, None)
        };
        let object = json!({"gone": null, "tags": ["a", "b"], "times": ["2024-01-01T05:00:00Z"], "ports": [{"n": 1, "v": "x"}]});
        for rule in [
            "!has(self.gone)",
            "self.tags == ['b', 'a'] && self.tags + ['c', 'a'] == ['a', 'b', 'c']",
            "self.times.all(t, t.getHours() == 5)",
            "(self.ports + self.ports).size() == 1",
        ] {
            assert!(with(rule, object.clone()).is_empty(), "{rule}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_told() {
        let unknown = "spec: Invalid value: \"object\": rule compile error: ERROR: <input>:1:5: undefined field 'no'\n | self.no == 1\n | ....^";
        expect("self.no == 1", json!({}), &[unknown]);
        let missing = "spec: Invalid value: \"object\": no such key: min evaluating rule: self.min == 1";
        expect("self.min == 1", json!({}), &[missing]);
    }

    #[test]
    fn a_change_is_judged_with_the_former_value() {
        let grows = spec(
            json!({"rule": "self.min >= oldSelf.min", "messageExpression": "'not under ' + string(oldSelf.min)"}),
        );
        assert!(broken(grows.clone(), json!({"min": 1}), None).is_empty());
        let refused = broken(grows, json!({"min": 1}), Some(json!({"min": 2})));
        assert_eq!(refused, ["spec: Invalid value: not under 2"]);
        let optional = spec(json!({"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true}));
        assert_eq!(broken(optional.clone(), json!({"min": 1}), None).len(), 1);
        assert!(broken(optional, json!({"min": 1}), Some(json!({"min": 2}))).is_empty());
    }

    #[test]
    fn the_root_has_kind_and_name_whatever_the_schema_says() {
        let schema = |rule: &str| {
            Structural::parse(&json!({"type": "object", "properties": {"metadata": {"type": "object"}},
                "x-kubernetes-validations": [{"rule": rule}]}))
        };
        let errors = |rule: &str| {
            let schema = schema(rule);
            let rules = Rules::new(&schema, &compile).expect("has rules");
            rules.check(&schema, &json!({"kind": "A", "metadata": {"name": "n"}}), None).errors.len()
        };
        assert_eq!(errors("self.metadata.name == 'n' && self.kind == 'A'"), 0);
        assert_eq!(errors("has(self.metadata.labels)"), 1);
    }
}
