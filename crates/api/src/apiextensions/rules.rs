//! The rules in a schema (`x-kubernetes-validations`): each has an expression that means something for its node. Follows the
//! part of `ValidateCustomResourceDefinitionOpenAPISchema` that is about them.

use apiextensions::{expression, fieldpath};
use apiextensions::rules::Subject;
use apiextensions::structural::Structural;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, json};

use crate::validation::At;

const RULES: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// How the rules of one node, and of no other, are written.
pub fn written(schema: &At, errors: &mut ErrorList) {
    for rule in schema.get(RULES).items() {
        texts(&rule, errors);
        let message = rule.get("messageExpression");
        if is_blank(&message) {
            errors.push(message.required("messageExpression must be non-empty if specified"));
        }
        if let Some(reason) = rule.field("reason") {
            reason.check_optional_enum(&REASONS, errors);
        }
        let field_path = rule.get("fieldPath");
        if is_blank(&field_path) {
            errors.push(field_path.invalid("must be non-empty if specified"));
        }
        if has_line_breaks(field_path.text()) {
            errors.push(field_path.invalid("must not contain line breaks"));
        }
    }
}

/// The rule and its message, of which one complaint at most is made.
fn texts(rule: &At, errors: &mut ErrorList) {
    let (text, message) = (rule.get("rule"), rule.get("message"));
    if text.text().trim().is_empty() {
        errors.push(text.required("rule is not specified"));
    } else if is_blank(&message) {
        errors.push(message.invalid("must be non-empty if specified"));
    } else if has_line_breaks(message.text().trim()) {
        errors.push(message.invalid("must not contain line breaks"));
    } else if has_line_breaks(text.text().trim()) && message.text().is_empty() {
        errors.push(message.required("message must be specified if rule contains line breaks"));
    }
}

fn is_blank(at: &At) -> bool {
    !at.text().is_empty() && at.text().trim().is_empty()
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What the expressions of a whole schema mean; to be asked of a schema without mistakes.
pub fn compiled(schema: &At, errors: &mut ErrorList) {
    node(schema, true, None, errors);
}

/// `uncorrelatable` is the outermost node above whose parts cannot be matched with their former ones.
fn node(schema: &At, is_root: bool, uncorrelatable: Option<&Path>, errors: &mut ErrorList) {
    let rules = schema.get(RULES);
    if !rules.is_empty() {
        let parsed = Structural::parse(schema.value);
        for rule in rules.items() {
            let has_optional_old = rule.get("optionalOldSelf").is_true();
            let subject = Subject { node: &parsed, is_root, has_optional_old };
            expressions(&rule, &subject, uncorrelatable, errors);
        }
    }
    let within = |is_correlatable: bool| match is_correlatable {
        true => uncorrelatable,
        false => uncorrelatable.or(Some(&schema.path)),
    };
    let is_atomic = schema.get("x-kubernetes-map-type").text() == "atomic";
    for (_, property) in schema.get("properties").entries() {
        below(&property, within(!is_atomic), errors);
    }
    if let Some(additional) = schema.field("additionalProperties") {
        below(&additional, uncorrelatable, errors);
    }
    if let Some(items) = schema.field("items") {
        below(&items, within(schema.get("x-kubernetes-list-type").text() == "map"), errors);
    }
}

fn below(schema: &At, uncorrelatable: Option<&Path>, errors: &mut ErrorList) {
    node(schema, schema.get("x-kubernetes-embedded-resource").is_true(), uncorrelatable, errors);
}

fn expressions(rule: &At, subject: &Subject<'_>, uncorrelatable: Option<&Path>, errors: &mut ErrorList) {
    let (text, message) = (rule.get("rule"), rule.get("messageExpression"));
    let compiled = expression::check_rule(text.text(), subject);
    let uses_old_self = compiled.as_ref().is_ok_and(|uses| *uses);
    if let Err(why) = compiled {
        errors.push(Error::invalid(&text.path, shown(rule.value), why));
    }
    if !message.text().is_empty()
        && let Err(why) = expression::check_message(message.text(), subject)
    {
        errors.push(Error::invalid(&message.path, shown(rule.value), why));
    }
    let field_path = rule.get("fieldPath");
    if !field_path.text().is_empty() && fieldpath::read(field_path.text(), subject.node).is_err() {
        errors.push(field_path.invalid("must be a valid path"));
    }
    let optional = rule.get("optionalOldSelf");
    match uncorrelatable {
        Some(list) if uses_old_self => errors.push(text.invalid(format!(
            "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
        ))),
        None | Some(_) if !uses_old_self && optional.is_set() => {
            errors.push(optional.invalid("may not be set if oldSelf is not used in rule"));
        }
        _ => {}
    }
}

/// A rule as upstream's errors show it: the fields of its internal form.
fn shown(rule: &Value) -> Value {
    let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
    json!({"Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
        "Reason": rule.get("reason"), "FieldPath": text("fieldPath"), "OptionalOldSelf": rule.get("optionalOldSelf")})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(schema: Value) -> Vec<String> {
        let at = At { value: &schema, path: Path::new("schema") };
        let mut errors = ErrorList::new();
        written(&at, &mut errors);
        if errors.is_empty() {
            compiled(&at, &mut errors);
        }
        errors.iter().map(ToString::to_string).collect()
    }

    fn with(rule: Value) -> Vec<String> {
        complaints(json!({"type": "object", "properties": {"n": {"type": "integer"}}, RULES: [rule]}))
    }

    #[test]
    fn rules_must_be_written_well() {
        assert!(with(json!({"rule": "self.n > 0", "message": "too few"})).is_empty());
        let rule = "schema.x-kubernetes-validations[0]";
        assert_eq!(
            with(json!({"rule": " "})),
            [format!("{rule}.rule: Required value: rule is not specified")]
        );
        assert_eq!(
            with(json!({"rule": "self.n\n> 0"})),
            [format!(
                "{rule}.message: Required value: message must be specified if rule contains line breaks"
            )]
        );
        assert_eq!(
            with(json!({"rule": "true", "reason": "Because"})),
            [format!(
                "{rule}.reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            )]
        );
    }

    #[test]
    fn expressions_must_mean_something() {
        let first = |rule: Value| with(rule).concat();
        let unknown = first(json!({"rule": "self.no == 1"}));
        assert!(unknown.contains("\"Rule\":\"self.no == 1\""), "{unknown}");
        assert!(
            unknown.contains("compilation failed: ERROR: <input>:1:5: undefined field 'no'"),
            "{unknown}"
        );
        assert!(first(json!({"rule": "self.n"})).ends_with("cel expression must evaluate to a bool"));
        assert!(
            first(json!({"rule": "true", "messageExpression": "1"}))
                .ends_with("messageExpression must evaluate to a string")
        );
        assert!(
            first(json!({"rule": "true", "optionalOldSelf": true}))
                .ends_with("may not be set if oldSelf is not used in rule")
        );
        assert!(with(json!({"rule": "true", "fieldPath": ".n"})).is_empty());
        assert!(
            first(json!({"rule": "true", "fieldPath": ".x"})).ends_with("\".x\": must be a valid path")
        );
    }

    #[test]
    fn items_that_cannot_be_told_apart_have_no_former_value() {
        let list = |list_type: &str| {
            complaints(
                json!({"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}, RULES: [{"rule": "self == oldSelf"}]}}),
            )
        };
        assert!(list("map").is_empty());
        assert_eq!(
            list("atomic"),
            [
                "schema.items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within schema"
            ]
        );
    }
}
