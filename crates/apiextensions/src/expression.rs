//! Expressions of a schema's rules: `self` and `oldSelf` have the types that the schema gives them. Follows
//! `k8s.io/apiserver/pkg/cel/common.SchemaDeclType` and the apiextensions server's `cel.compileRule`.

use apimachinery::Value;
use cel::{Env, EvalError, ObjectType, PER_CALL_LIMIT, Type, Val};

use crate::rules::{Evaluated, Failure, Old, Program, Subject};
use crate::structural::{Structural, Type as SchemaType};

const SELF: &str = "self";
const OLD_SELF: &str = "oldSelf";

/// Makes the program of an expression, or says what is wrong with it in cel-go's words.
pub fn compile(text: &str, subject: &Subject<'_>) -> Result<Box<dyn Program>, String> {
    program(text, subject).map(|program| Box::new(Expression(program)) as Box<dyn Program>)
}

fn program(text: &str, subject: &Subject<'_>) -> Result<cel::Program, String> {
    let of = declared(subject.node, subject.is_root)
        .ok_or("schema type is not supported: the type of the value is not known")?;
    let old = if subject.has_optional_old { Type::optional(of.clone()) } else { of.clone() };
    Env::new().with(SELF, of).with(OLD_SELF, old).compile(text).map_err(|why| why.to_string())
}

/// Whether a rule asks for the former value, or what is wrong with the rule.
pub fn check_rule(text: &str, subject: &Subject<'_>) -> Result<bool, String> {
    let program = program(text, subject).map_err(|why| format!("compilation failed: {why}"))?;
    match program.of() {
        Type::Bool => Ok(program.reads(OLD_SELF)),
        _ => Err("cel expression must evaluate to a bool".to_owned()),
    }
}

/// What is wrong with a message's expression.
pub fn check_message(text: &str, subject: &Subject<'_>) -> Result<(), String> {
    let program =
        program(text, subject).map_err(|why| format!("messageExpression compilation failed: {why}"))?;
    match program.of() {
        Type::String => Ok(()),
        _ => Err("messageExpression must evaluate to a string".to_owned()),
    }
}

struct Expression(cel::Program);

impl Program for Expression {
    fn uses_old_self(&self) -> bool {
        self.0.reads(OLD_SELF)
    }

    fn eval(&self, this: &Value, old: Old<'_>) -> Evaluated {
        let bindings = self.0.bindings().set(SELF, this);
        let bindings = match old {
            Old::Undefined => bindings,
            Old::Value(old) => bindings.set(OLD_SELF, old),
            Old::Optional(None) => bindings.set(OLD_SELF, Val::Optional(None)),
            Old::Optional(Some(old)) => bindings.set(OLD_SELF, Val::some(Val::from(old))),
        };
        let evaluated = self.0.evaluate(&bindings, PER_CALL_LIMIT);
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

/// The type of a node's values; none where nothing is known of them. `is_object` gives it what every object has.
fn declared(node: &Structural, is_object: bool) -> Option<Type> {
    if node.int_or_string {
        return Some(Type::Dyn);
    }
    Some(match node.ty {
        SchemaType::Any => return None,
        SchemaType::Array => Type::list(below(node.items.as_deref()?)?),
        SchemaType::Object => match node.additional.schema() {
            Some(schema) => Type::map(Type::String, below(schema)?),
            None => Type::Object(ObjectType::new("object", fields(node, is_object || node.embedded))),
        },
        SchemaType::String => text(node.checks.as_deref().map_or("", |checks| &checks.format)),
        SchemaType::Integer => Type::Int,
        SchemaType::Number => Type::Double,
        SchemaType::Boolean => Type::Bool,
    })
}

fn below(node: &Structural) -> Option<Type> {
    declared(node, node.embedded)
}

fn text(format: &str) -> Type {
    match format {
        "byte" => Type::Bytes,
        "duration" => Type::Duration,
        "date" | "date-time" => Type::Timestamp,
        _ => Type::String,
    }
}

/// Of an object's metadata, only what names it may be looked at (upstream: `WithTypeAndObjectMeta`).
fn fields(node: &Structural, is_object: bool) -> Vec<(String, Type)> {
    let said = node.properties.iter().filter_map(|(name, schema)| Some((name.to_owned(), below(schema)?)));
    let mut fields: Vec<_> = said.collect();
    if is_object {
        let strings = |names: [&str; 2]| names.map(|name| (name.to_owned(), Type::String));
        let metadata = ObjectType::new("metadata", strings(["name", "generateName"]));
        fields.retain(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        fields.extend(strings(["apiVersion", "kind"]));
        fields.push(("metadata".to_owned(), Type::Object(metadata)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
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
