//! Conditions of the form that all kinds share (follows `metav1validation.ValidateConditions`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};

use super::At;
use crate::objectmeta::validate_label_name;

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON_MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Checks a list of `metav1.Condition`.
pub fn conditions(list: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            errors.push(Error::duplicate(&kind.path, kind.text()));
        }
        self::condition(&condition, errors);
    }
}

fn condition(condition: &At, errors: &mut ErrorList) {
    let kind = condition.get("type");
    validate_label_name(kind.text(), &kind.path, errors);
    let status = condition.get("status");
    if !STATUSES.contains(&status.text()) {
        errors.push(Error::not_supported(&status.path, status.text(), &STATUSES));
    }
    let generation = condition.get("observedGeneration");
    if generation.int() < 0 {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    let since = condition.get("lastTransitionTime");
    if since.is_empty() {
        errors.push(since.required(""));
    }
    let reason = condition.get("reason");
    if reason.is_empty() {
        errors.push(reason.required(""));
    } else {
        reason.check(is_reason, errors);
    }
    reason.check_bytes(REASON_BYTES_MAX, errors);
    condition.get("message").check_bytes(MESSAGE_BYTES_MAX, errors);
}

fn is_reason(text: &str) -> Vec<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let is_valid = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| is_word(*last))
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b',' | b':'));
    if is_valid { Vec::new() } else { vec![REASON_MESSAGE.to_owned()] }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::expect_errors;

    fn check(list: Value, expect: &[&str]) {
        let mut errors = ErrorList::new();
        conditions(&At::root(&json!({"at": list})).get("at"), &mut errors);
        expect_errors(&errors, expect);
    }

    #[test]
    fn a_condition_says_what_since_when_and_why() {
        let good = json!({"type": "a/Ready", "status": "True", "reason": "A1,b:c_", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        check(json!([good]), &[]);
        check(json!([good, good]), &["at[1].type: Duplicate value: \"a/Ready\""]);
        check(
            json!([{"type": "", "status": "x", "observedGeneration": -1}]),
            &[
                "at[0].type: Invalid value: \"\": name part must be non-empty",
                "at[0].type: Invalid value: \"\": name part must consist of",
                "at[0].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\"",
                "at[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "at[0].lastTransitionTime: Required value",
                "at[0].reason: Required value",
            ],
        );
        let with = |field: &str, text: String| {
            let mut changed = good.clone();
            changed[field] = text.into();
            json!([changed])
        };
        for reason in ["1", "a b", "a:", ","] {
            check(with("reason", reason.to_owned()), &["at[0].reason: Invalid value"]);
        }
        check(with("reason", "a".repeat(1025)), &["at[0].reason: Too long: may not be more than 1024 bytes"]);
        check(with("message", "a".repeat(32769)), &["at[0].message: Too long: may not be more than 32768"]);
    }
}
