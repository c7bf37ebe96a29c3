//! PriorityLevelConfiguration (follows `pkg/registry/flowcontrol/prioritylevelconfiguration`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::{conditions, mandatory};
use crate::columns::{AGE, NAME, NONE, age, column, name};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{
    Column, Strategy, bump_generation, drop_field, keep, keep_all_metadata, set_first_generation,
};
use crate::validation::At;

const EXEMPT: &str = "exempt";
const TYPES: [&str; 2] = ["Exempt", "Limited"];
const RESPONSES: [&str; 2] = ["Queue", "Reject"];
/// Queues of one level.
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash that deals hands of queues.
const HASH_BITS: f64 = 60.0;
const NON_NEGATIVE: &str = "must be a non-negative integer";

const EXEMPT_DEFAULTS: &[(&str, Fill)] =
    &[("nominalConcurrencyShares", Fill::Int(0)), ("lendablePercent", Fill::Int(0))];
const LIMITED_DEFAULTS: &[(&str, Fill)] = &[
    ("nominalConcurrencyShares", Fill::Int(30)),
    ("lendablePercent", Fill::Int(0)),
    ("limitResponse", Fill::Empty),
];
const QUEUING_DEFAULTS: &[(&str, Fill)] =
    &[("handSize", Fill::NonZero(8)), ("queues", Fill::NonZero(64)), ("queueLengthLimit", Fill::NonZero(50))];

const COLUMNS: [Column; 7] = [
    NAME,
    column("Type", "string", "Whether its requests are limited."),
    column("NominalConcurrencyShares", "string", "Its part of the server's seats."),
    column("Queues", "string", "How many queues it has."),
    column("HandSize", "string", "How many queues a flow is dealt."),
    column("QueueLengthLimit", "string", "How many requests wait in a queue."),
    AGE,
];

pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("status", Fill::Empty)]);
        let Some(spec) = object_or_new(obj, "spec") else { return };
        if let Some(exempt) = object(spec, "exempt") {
            fill(exempt, EXEMPT_DEFAULTS);
        }
        if let Some(limited) = object(spec, "limited") {
            fill(limited, LIMITED_DEFAULTS);
            let queuing = object(limited, "limitResponse").and_then(|response| object(response, "queuing"));
            if let Some(queuing) = queuing {
                fill(queuing, QUEUING_DEFAULTS);
            }
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        fill(obj, &[("status", Fill::Empty)]);
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = str_at(obj, &["metadata", "name"]);
        spec(&At::root(obj).get("spec"), name, &mut errors);
        mandatory(obj, "PriorityLevelConfiguration", (name == EXEMPT).then_some(EXEMPT), &mut errors);
        conditions(obj, &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        conditions(obj, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let limited = At::root(obj).at(&["spec", "limited"]);
        let queuing = limited.at(&["limitResponse", "queuing"]);
        let cell = |at: At| at.set().map_or_else(|| NONE.into(), |at| at.value.clone());
        vec![
            name(obj),
            str_at(obj, &["spec", "type"]).into(),
            cell(limited.get("nominalConcurrencyShares")),
            cell(queuing.get("queues")),
            cell(queuing.get("handSize")),
            cell(queuing.get("queueLengthLimit")),
            age(obj, now),
        ]
    }
}

fn spec(spec: &At, name: &str, errors: &mut ErrorList) {
    let of_type = spec.get("type");
    let (exempt, limited) = (spec.field("exempt"), spec.field("limited"));
    if (name == EXEMPT) != (of_type.text() == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&of_type.path, of_type.text(), detail));
    }
    match of_type.text() {
        "Exempt" => {
            if let Some(limited) = limited {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            if let Some(exempt) = exempt {
                shares(&exempt, errors);
            }
        }
        "Limited" => {
            if let Some(exempt) = exempt {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            match limited {
                Some(limited) => check_limited(&limited, errors),
                None => errors.push(spec.get("limited").required("must not be empty when type is Limited")),
            }
        }
        text => errors.push(Error::not_supported(&of_type.path, text, &TYPES)),
    }
}

fn shares(at: &At, errors: &mut ErrorList) {
    let shares = at.get("nominalConcurrencyShares");
    if shares.int() < 0 {
        errors.push(shares.invalid(NON_NEGATIVE));
    }
    let lendable = at.get("lendablePercent");
    if !(0..=100).contains(&lendable.int()) {
        errors.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
}

fn check_limited(limited: &At, errors: &mut ErrorList) {
    shares(limited, errors);
    let response = limited.get("limitResponse");
    let queuing = response.get("queuing");
    match response.get("type").text() {
        "Reject" if queuing.is_set() => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"))
        }
        "Reject" => {}
        "Queue" if queuing.is_set() => check_queuing(&queuing, errors),
        "Queue" => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"))
        }
        text => errors.push(Error::not_supported(&response.get("type").path, text, &RESPONSES)),
    }
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int() < 0 {
        errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
    }
}

fn check_queuing(at: &At, errors: &mut ErrorList) {
    const POSITIVE: &str = "must be positive";
    let (length, queues, hand) = (at.get("queueLengthLimit"), at.get("queues"), at.get("handSize"));
    if length.int() <= 0 {
        errors.push(length.invalid(POSITIVE));
    }
    if queues.int() <= 0 {
        errors.push(queues.invalid(POSITIVE));
    } else if queues.int() > QUEUES_MAX {
        errors.push(queues.invalid(format!("must not be greater than {QUEUES_MAX}")));
    }
    let (deck, size) = (queues.int(), hand.int());
    if size <= 0 {
        errors.push(hand.invalid(POSITIVE));
    } else if size > deck {
        errors.push(hand.invalid(format!("should not be greater than queues ({deck})")));
    } else if ((deck as f64).log2() * size as f64).ceil() > HASH_BITS {
        errors.push(hand.invalid(format!("required entropy bits of deckSize {deck} and handSize {size} should not be greater than {HASH_BITS}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn levels_are_checked_field_by_field() {
        let check = |name: &str, spec: Value, expect: &[&str]| {
            let mut obj = json!({"metadata": {"name": name}, "spec": spec});
            PriorityLevelConfiguration.default(&mut obj);
            expect_errors(&PriorityLevelConfiguration.validate(&obj), expect);
        };
        let queuing = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        check("a", queuing(json!({})), &[]);
        check(
            "a",
            json!({"type": "Limited"}),
            &["spec.limited: Required value: must not be empty when type is Limited"],
        );
        check(
            "a",
            json!({"type": "Exempt"}),
            &["spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if"],
        );
        check(
            "a",
            queuing(json!({"queues": 2, "handSize": 3})),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)",
            ],
        );
        check(
            "a",
            queuing(json!({"queues": 100_000, "handSize": 9})),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: required entropy bits of deckSize 100000",
            ],
        );
        check("exempt", json!({"type": "Exempt", "exempt": {"lendablePercent": 5}}), &[]);
        check("catch-all", queuing(json!({})), &["spec: Invalid value"]);
    }
}
