//! Conditions in a status, for those who write them.

use apimachinery::meta::Condition;
use jiff::Timestamp;

/// Puts a condition in the place of that of the same type; only another status gives it a new time (upstream:
/// `SetStatusCondition`).
pub fn set(conditions: &mut Vec<Condition>, condition: Condition, now: Timestamp) {
    match conditions.iter_mut().find(|present| present.kind == condition.kind) {
        Some(present) => {
            let since = present.last_transition_time.filter(|_| present.status == condition.status);
            *present = Condition { last_transition_time: since.or(Some(now)), ..condition };
        }
        None => conditions.push(Condition { last_transition_time: Some(now), ..condition }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn only_another_status_gives_a_condition_a_new_time() {
        let condition = |status: &str, reason: &str| Condition {
            kind: "Ready".into(),
            status: status.into(),
            reason: reason.into(),
            ..Condition::default()
        };
        let mut conditions = Vec::new();
        for (second, status, reason, since) in
            [(0, "True", "A", 0), (1, "True", "B", 0), (2, "False", "C", 2)]
        {
            set(&mut conditions, condition(status, reason), at(second));
            let expect = Condition { last_transition_time: Some(at(since)), ..condition(status, reason) };
            assert_eq!(conditions, [expect]);
        }
    }
}
