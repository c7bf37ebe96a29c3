//! Match conditions, of webhooks and policies alike. Follows `matchconditions.Matcher`.

use apimachinery::Value;

use super::Evaluator;
use crate::webhook::MatchCondition;

#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    pub all: &'a [MatchCondition],
    pub ignores_failures: bool,
}

/// Whether all hold. One that does not hold decides whatever else fails; failures count as the policy says.
pub fn check(conditions: Conditions<'_>, evaluator: &dyn Evaluator) -> Result<bool, String> {
    let mut errors = Vec::new();
    for condition in conditions.all {
        match evaluator.evaluate(&condition.expression) {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => errors.push(why),
        }
    }
    match (errors.is_empty(), conditions.ignores_failures) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(crate::aggregate(&errors)),
    }
}
