//! The rules in a schema (`x-kubernetes-validations`): each has an expression that means something for its node. Follows the
//! part of `ValidateCustomResourceDefinitionOpenAPISchema` that is about them.

use apiextensions::rules::Subject;
use apiextensions::size::{self, Bounds};
use apiextensions::structural::Structural;
use apiextensions::{expression, fieldpath};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, json};
use cel::Extent;

use crate::validation::At;

const RULES: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What an expression may cost at most (upstream: `StaticEstimatedCostLimit`).
const COST_MAX: u64 = 10_000_000;
/// What all expressions of a schema may (upstream: `StaticEstimatedCRDCostLimit`).
const TOTAL_COST_MAX: u64 = 100_000_000;
/// More expressions are not told to be expensive together.
const TOLD_MAX: usize = 4;

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

/// What the expressions of a whole schema mean and cost; to be asked of a schema without mistakes.
pub fn compiled(schema: &At, errors: &mut ErrorList) {
    let mut checker = Checker { errors, costs: Costs::default() };
    checker.node(schema, &Place { is_root: true, uncorrelatable: None, count: Some(1) });
    let costs = checker.costs;
    costs.complain(&schema.path, errors);
}

/// Where a node stands.
struct Place<'p> {
    is_root: bool,
    /// The outermost node above whose parts cannot be matched with their former ones.
    uncorrelatable: Option<&'p Path>,
    /// How often the node can occur; none without limit.
    count: Option<u64>,
}

struct Checker<'e> {
    errors: &'e mut ErrorList,
    costs: Costs,
}

impl Checker<'_> {
    fn node(&mut self, schema: &At, place: &Place<'_>) {
        let rules = schema.get(RULES);
        if !rules.is_empty() {
            self.rules(schema, &rules, place);
        }
        let within = |is_correlatable: bool| match is_correlatable {
            true => place.uncorrelatable,
            false => place.uncorrelatable.or(Some(&schema.path)),
        };
        let times = |limit: &str| {
            let limit = schema.get(limit).set().and_then(|limit| u64::try_from(limit.int()).ok());
            place.count.zip(limit).map(|(count, limit)| count.saturating_mul(limit))
        };
        let is_atomic = schema.get("x-kubernetes-map-type").text() == "atomic";
        for (_, property) in schema.get("properties").entries() {
            self.below(&property, within(!is_atomic), place.count);
        }
        if let Some(additional) = schema.field("additionalProperties") {
            self.below(&additional, place.uncorrelatable, times("maxProperties"));
        }
        if let Some(items) = schema.field("items") {
            let is_map = schema.get("x-kubernetes-list-type").text() == "map";
            self.below(&items, within(is_map), times("maxItems"));
        }
    }

    fn below(&mut self, schema: &At, uncorrelatable: Option<&Path>, count: Option<u64>) {
        let is_root = schema.get("x-kubernetes-embedded-resource").is_true();
        self.node(schema, &Place { is_root, uncorrelatable, count });
    }

    fn rules(&mut self, schema: &At, rules: &At, place: &Place<'_>) {
        let parsed = Structural::parse(schema.value);
        let bounds = size::bounds(&parsed, place.is_root);
        let count = place.count.or_else(|| bounds.as_ref().map(Bounds::count_max)).unwrap_or(1);
        let extent = bounds.map(|bounds| bounds.extent).unwrap_or_default();
        for rule in rules.items() {
            let has_optional_old = rule.get("optionalOldSelf").is_true();
            let subject = Subject { node: &parsed, is_root: place.is_root, has_optional_old };
            let uses_old_self = self.expressions(&rule, &subject, &extent, count);
            self.former_value(&rule, uses_old_self, place.uncorrelatable);
        }
    }

    /// Whether the rule asks for the former value.
    fn expressions(&mut self, rule: &At, subject: &Subject<'_>, extent: &Extent, count: u64) -> bool {
        let (text, message) = (rule.get("rule"), rule.get("messageExpression"));
        let compiled = expression::check_rule(text.text(), subject, extent);
        match &compiled {
            Ok(checked) => {
                let cost = checked.cost_max.saturating_mul(count);
                self.costs.observe(&text.path, "estimated rule cost", cost, self.errors);
            }
            Err(why) => self.errors.push(Error::invalid(&text.path, shown(rule.value), why.as_str())),
        }
        if !message.text().is_empty() {
            match expression::check_message(message.text(), subject, extent) {
                Ok(cost) => {
                    self.costs.observe(&message.path, "estimated messageExpression cost", cost, self.errors);
                }
                Err(why) => self.errors.push(Error::invalid(&message.path, shown(rule.value), why)),
            }
        }
        let field_path = rule.get("fieldPath");
        if !field_path.text().is_empty() && fieldpath::read(field_path.text(), subject.node).is_err() {
            self.errors.push(field_path.invalid("must be a valid path"));
        }
        compiled.is_ok_and(|checked| checked.uses_old_self)
    }

    fn former_value(&mut self, rule: &At, uses_old_self: bool, uncorrelatable: Option<&Path>) {
        let optional = rule.get("optionalOldSelf");
        match uncorrelatable {
            Some(list) if uses_old_self => self.errors.push(rule.get("rule").invalid(format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
            ))),
            None | Some(_) if !uses_old_self && optional.is_set() => {
                self.errors.push(optional.invalid("may not be set if oldSelf is not used in rule"));
            }
            _ => {}
        }
    }
}

/// What the expressions of one schema cost at most.
#[derive(Default)]
struct Costs {
    total: u64,
    /// The most expensive of those that matter.
    highest: Vec<(Path, u64)>,
}

impl Costs {
    fn observe(&mut self, path: &Path, what: &str, cost: u64, errors: &mut ErrorList) {
        if cost > COST_MAX {
            errors.push(Error::forbidden(path, exceeds(what, cost, COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_COST_MAX / 100 {
            self.highest.push((path.clone(), cost));
            self.highest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.highest.truncate(TOLD_MAX);
        }
    }

    fn complain(&self, schema: &Path, errors: &mut ErrorList) {
        if self.total <= TOTAL_COST_MAX {
            return;
        }
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.extend(self.highest.iter().map(|(path, _)| Error::forbidden(path, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(schema, exceeds(what, self.total, TOTAL_COST_MAX)));
    }
}

fn exceeds(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
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
        assert!(first(json!({"rule": "true", "fieldPath": ".x"})).ends_with("\".x\": must be a valid path"));
    }

    #[test]
    fn expressions_must_not_cost_too_much() {
        let list = |limits: Value| {
            let mut schema = json!({"type": "array", "items": {"type": "string", "maxLength": 20}, RULES:
                [{"rule": "self.all(x, self.exists_one(y, x == y))"}]});
            schema.as_object_mut().expect("a map").extend(limits.as_object().expect("a map").clone());
            complaints(json!({"type": "object", "properties": {"l": schema}}))
        };
        assert!(list(json!({"maxItems": 50})).is_empty());
        let rule = "schema.properties[l].x-kubernetes-validations[0].rule";
        let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
        assert_eq!(
            list(json!({})),
            [
                format!(
                    "{rule}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {advice}"
                ),
                format!(
                    "{rule}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                ),
                format!(
                    "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {advice}"
                ),
            ]
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
