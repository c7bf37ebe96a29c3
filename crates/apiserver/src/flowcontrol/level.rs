//! What a PriorityLevelConfiguration says, and how many seats follow from it.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::meta::str_at;

use super::queues::Queuing;

/// One list request takes at most this part of its level's seats (upstream: `priorityLevelMaxSeatsPercent`).
const WIDTH_PART_MAX: f64 = 0.15;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelConfig {
    pub name: Arc<str>,
    pub uid: String,
    /// Its requests run at once, however many there are.
    pub exempt: bool,
    /// Its part of the server's seats, in relation to others.
    pub shares: u32,
    pub lendable_percent: u32,
    /// None borrows whatever is lent.
    pub borrowing_limit_percent: Option<u32>,
    /// None refuses what finds no seat.
    pub queuing: Option<Queuing>,
}

/// Seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub exempt: bool,
    pub nominal: u32,
    /// Of the nominal ones, those that others may use while they are free.
    pub lendable: u32,
    /// With all that may be borrowed.
    pub max: u32,
}

impl LevelConfig {
    pub fn of(object: &Value) -> LevelConfig {
        let spec = &object["spec"];
        let exempt = str_at(spec, &["type"]) == "Exempt";
        let limits = &spec[if exempt { "exempt" } else { "limited" }];
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let response = &limits["limitResponse"];
        let queuing = &response["queuing"];
        let count = |field: &str| number(&queuing[field]).unwrap_or(1).max(1) as usize;
        let queues = (str_at(response, &["type"]) == "Queue").then(|| Queuing {
            queues: count("queues"),
            hand_size: count("handSize"),
            queue_length_limit: count("queueLengthLimit"),
        });
        LevelConfig {
            name: str_at(object, &["metadata", "name"]).into(),
            uid: str_at(object, &["metadata", "uid"]).to_owned(),
            exempt,
            shares: number(&limits["nominalConcurrencyShares"]).unwrap_or_default(),
            lendable_percent: number(&limits["lendablePercent"]).unwrap_or_default(),
            borrowing_limit_percent: number(&limits["borrowingLimitPercent"]),
            queuing: queues,
        }
    }

    /// Its part of `total` seats, which are divided into `shares`. Follows `finishQueueSetReconfigsLocked`.
    pub fn limits(&self, total: u32, shares: u64) -> Limits {
        let nominal = (u64::from(total) * u64::from(self.shares)).div_ceil(shares.max(1));
        let nominal = u32::try_from(nominal).unwrap_or(u32::MAX).min(total);
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrowing = self.borrowing_limit_percent.map_or(total, percent);
        Limits {
            exempt: self.exempt,
            nominal,
            lendable: percent(self.lendable_percent).min(nominal),
            max: nominal.saturating_add(borrowing),
        }
    }

    /// The most seats that one list takes, so that one flow cannot hold all seats with few requests.
    pub fn width_max(&self, limits: &Limits) -> Option<u32> {
        let hand_size = u32::try_from(self.queuing?.hand_size).unwrap_or(u32::MAX);
        let part = (f64::from(limits.nominal) * WIDTH_PART_MAX).ceil() as u32;
        Some(part.min(limits.nominal / hand_size).max(1))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(spec: Value, total: u32, shares: u64, expect: (u32, u32, u32)) {
        let level = LevelConfig::of(&json!({"metadata": {"name": "l"}, "spec": spec}));
        let limits = level.limits(total, shares);
        assert_eq!((limits.nominal, limits.lendable, limits.max), expect, "{spec}");
    }

    #[test]
    fn seats_follow_from_shares_and_percentages() {
        let limited = |more: Value| {
            let mut limited = json!({"nominalConcurrencyShares": 30});
            limited.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
            json!({"type": "Limited", "limited": limited})
        };
        check(limited(json!({})), 600, 245, (74, 0, 674));
        check(limited(json!({"lendablePercent": 33})), 600, 245, (74, 24, 674));
        check(limited(json!({"borrowingLimitPercent": 50})), 600, 245, (74, 0, 111));
        check(limited(json!({"borrowingLimitPercent": 0})), 600, 245, (74, 0, 74));
        check(
            limited(json!({"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0})),
            600,
            245,
            (0, 0, 0),
        );
        check(json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}), 600, 245, (0, 0, 600));
        check(limited(json!({})), 0, 0, (0, 0, 0));
    }

    #[test]
    fn a_wide_list_takes_a_part_of_its_level() {
        let spec = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {
            "type": "Queue", "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}}}});
        let level = LevelConfig::of(&json!({"metadata": {"name": "l"}, "spec": spec}));
        assert_eq!(level.queuing.map(|queuing| queuing.hand_size), Some(6));
        let max = |nominal| level.width_max(&Limits { nominal, ..Limits::default() });
        assert_eq!([max(100), max(30), max(3)], [Some(15), Some(5), Some(1)]);
    }
}
