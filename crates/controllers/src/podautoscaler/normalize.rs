//! Keeps a proposed size within limits of size and pace, and from flapping (follows `normalizeDesiredReplicas` and
//! `normalizeDesiredReplicasWithBehaviors`).

use api::view::autoscaling::{Behavior, ScalingPolicy, ScalingRules};
use jiff::{SignedDuration, Timestamp};

use super::history::History;

/// Upstream: `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION_DOWN_SECONDS: i32 = 300;
/// Without behavior, growth is at most twofold, or to four pods.
const UP_FACTOR: i32 = 2;
const UP_MINIMUM: i32 = 4;

/// The sizes to stay within, and the one to go from.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub current: i32,
    pub min: i32,
    pub max: i32,
}

/// Why a size is what it is: a condition's reason and message.
pub type Because = (&'static str, &'static str);

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalized {
    pub replicas: i32,
    /// Of the condition AbleToScale.
    pub stabilized: Because,
    pub is_limited: bool,
    /// Of the condition ScalingLimited.
    pub limited: Because,
}

const READY: Because = ("ReadyForNewScale", "recommended size matches current size");
const STABILIZED_DOWN: Because = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const STABILIZED_UP: Because = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN_RANGE: Because = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: Because =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Because =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Because =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Because =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

pub fn normalize(
    behavior: Option<&Behavior>,
    history: &mut History,
    bounds: Bounds,
    desired: i32,
    now: Timestamp,
) -> Normalized {
    let (wished, because, (replicas, limited)) = match behavior {
        None => {
            let wished = stabilize_plainly(history, desired, now);
            (wished, STABILIZED_DOWN, limit_plainly(bounds, wished))
        }
        Some(behavior) => {
            let (up, down) = (up_rules(behavior), down_rules(behavior));
            let wished = stabilize(history, bounds.current, desired, &up, &down, now);
            let because = if desired >= bounds.current { STABILIZED_UP } else { STABILIZED_DOWN };
            (wished, because, limit(history, bounds, wished, &up, &down, now))
        }
    };
    let stabilized = if wished == desired { READY } else { because };
    Normalized { replicas, stabilized, is_limited: replicas != wished, limited }
}

/// The most of what was lately recommended.
fn stabilize_plainly(history: &mut History, desired: i32, now: Timestamp) -> i32 {
    let recent = history.recommended_since(ago(now, STABILIZATION_DOWN_SECONDS));
    let highest = recent.fold(desired, i32::max);
    history.recommend(desired, now);
    highest
}

fn limit_plainly(bounds: Bounds, wished: i32) -> (i32, Because) {
    let fastest = bounds.current.saturating_mul(UP_FACTOR).max(UP_MINIMUM);
    let (most, because) = if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    if wished < bounds.min {
        (bounds.min, TOO_FEW)
    } else if wished > most {
        (most, because)
    } else {
        (wished, WITHIN_RANGE)
    }
}

/// Upwards not past the least, downwards not below the most of what was recommended in the windows.
fn stabilize(
    history: &mut History,
    current: i32,
    desired: i32,
    up: &ScalingRules,
    down: &ScalingRules,
    now: Timestamp,
) -> i32 {
    let window = |rules: &ScalingRules| ago(now, rules.stabilization_window_seconds.unwrap_or(0));
    let least = history.recommended_since(window(up)).fold(desired, i32::min);
    let most = history.recommended_since(window(down)).fold(desired, i32::max);
    history.recommend(desired, now);
    current.max(least).min(most)
}

/// Upstream: `convertDesiredReplicasWithBehaviorRate`.
fn limit(
    history: &History,
    bounds: Bounds,
    wished: i32,
    up: &ScalingRules,
    down: &ScalingRules,
    now: Timestamp,
) -> (i32, Because) {
    let pace = |policy: &ScalingPolicy| {
        let start = bounds.current - history.change_since(ago(now, policy.period_seconds));
        (start, policy.value, policy.kind == "Percent")
    };
    if wished > bounds.current {
        let proposed = up.policies.iter().map(|policy| match pace(policy) {
            (start, value, true) => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
            (start, value, false) => start.saturating_add(value),
        });
        let fastest = match select(up) {
            Select::Disabled => bounds.current,
            Select::Least => proposed.min().unwrap_or(i32::MAX),
            Select::Most => proposed.max().unwrap_or(i32::MIN),
        };
        let fastest = fastest.max(bounds.current);
        let (most, because) = if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
        if wished > most { (most, because) } else { (wished, WITHIN_RANGE) }
    } else if wished < bounds.current {
        let proposed = down.policies.iter().map(|policy| match pace(policy) {
            (start, value, true) => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
            (start, value, false) => start.saturating_sub(value),
        });
        let fastest = match select(down) {
            Select::Disabled => bounds.current,
            Select::Least => proposed.max().unwrap_or(i32::MIN),
            Select::Most => proposed.min().unwrap_or(i32::MAX),
        };
        let fastest = fastest.min(bounds.current);
        let (fewest, because) =
            if bounds.min < fastest { (fastest, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
        if wished < fewest { (fewest, because) } else { (wished, WITHIN_RANGE) }
    } else {
        (wished, WITHIN_RANGE)
    }
}

/// Which of several policies counts, by the change it allows.
enum Select {
    Most,
    Least,
    Disabled,
}

fn select(rules: &ScalingRules) -> Select {
    match rules.select_policy.as_deref() {
        Some("Disabled") => Select::Disabled,
        Some("Min") => Select::Least,
        _ => Select::Most,
    }
}

/// What the server's defaults leave open cannot come up; a rule that is missing altogether is upstream's default.
fn up_rules(behavior: &Behavior) -> ScalingRules {
    let policy = |kind: &str, value| ScalingPolicy { kind: kind.into(), value, period_seconds: 15 };
    behavior.scale_up.clone().unwrap_or_else(|| ScalingRules {
        stabilization_window_seconds: Some(0),
        policies: vec![policy("Pods", 4), policy("Percent", 100)],
        ..ScalingRules::default()
    })
}

fn down_rules(behavior: &Behavior) -> ScalingRules {
    let mut rules = behavior.scale_down.clone().unwrap_or_else(|| ScalingRules {
        policies: vec![ScalingPolicy { kind: "Percent".into(), value: 100, period_seconds: 15 }],
        ..ScalingRules::default()
    });
    rules.stabilization_window_seconds.get_or_insert(STABILIZATION_DOWN_SECONDS);
    rules
}

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    now.saturating_sub(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MIN)
}
