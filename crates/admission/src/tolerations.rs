//! Joining lists of tolerations. Follows `pkg/util/tolerations` and `AddOrUpdateTolerationInPod`.

use apimachinery::Value;
use apimachinery::meta::str_at;

/// Both lists without what another toleration covers.
pub fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let covered = merged.iter().any(|kept| covers(kept, one))
            || all[i + 1..].iter().any(|later| later != one && covers(later, one));
        if !covered {
            merged.push((*one).clone());
        }
    }
    merged
}

fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |toleration: &Value, field: &str| str_at(toleration, &[field]).to_owned();
    let (operator, any_key) = (text(wide, "operator"), text(wide, "key").is_empty());
    if text(wide, "key") != text(narrow, "key") && !(any_key && operator == "Exists") {
        return false;
    }
    let effect = text(wide, "effect");
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|narrow| narrow > seconds)
    {
        return false;
    }
    match operator.as_str() {
        "Exists" => true,
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(wide, "value") == text(narrow, "value"),
        _ => false,
    }
}

/// Puts a toleration in place of those for the same taint, or at the end. Follows `AddOrUpdateTolerationInPod`.
pub fn add_or_update(list: &mut Vec<Value>, toleration: Value) {
    let same = |other: &Value| {
        ["key", "operator", "value", "effect"]
            .iter()
            .all(|field| str_at(other, &[field]) == str_at(&toleration, &[field]))
    };
    if list.contains(&toleration) {
        return;
    }
    match list.iter_mut().find(|other| same(other)) {
        Some(other) => *other = toleration,
        None => list.push(toleration),
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use apimachinery::json;

    use super::*;

    #[test]
    fn what_another_toleration_covers_is_left_out() {
        let exists = json!({"key": "a", "operator": "Exists"});
        let equal = json!({"key": "a", "operator": "Equal", "value": "x", "effect": "NoSchedule"});
        let other = json!({"key": "b", "operator": "Exists"});
        assert_eq!(
            merge(slice::from_ref(&equal), &[exists.clone(), other.clone()]),
            [exists.clone(), other.clone()]
        );
        assert_eq!(merge(slice::from_ref(&exists), &[equal, exists.clone()]), slice::from_ref(&exists));
        assert_eq!(
            merge(slice::from_ref(&exists), &[json!({"operator": "Exists"})]),
            [json!({"operator": "Exists"})]
        );
    }
}
