//! Match conditions, of webhooks and policies alike. Follows `matchconditions.Matcher`.

use api::admissionregistration::expression::{self as declared, Offers, Returns, Types};
use cel::{Env, MATCH_CONDITIONS_BUDGET, Val};
use serde::Deserialize;

use crate::expression::{Evaluator, Expression, Failure, Inputs};

/// A condition as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MatchCondition {
    pub expression: String,
}

#[derive(Debug, Default)]
pub struct Conditions(Vec<Expression>);

impl Conditions {
    pub fn new(env: &Env, written: &[MatchCondition]) -> Conditions {
        Conditions(
            written
                .iter()
                .map(|condition| Expression::new(env, &condition.expression, Returns::Bool))
                .collect(),
        )
    }

    /// Those of a webhook, which has no parameters.
    pub fn of_webhook(written: &[MatchCondition]) -> Conditions {
        if written.is_empty() {
            return Conditions::default();
        }
        let offers = Offers { authorizer: true, ..Offers::default() };
        Conditions::new(&declared::env(offers, &Types::default()), written)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not hold decides whatever else fails; failures count as the policy says.
    pub fn hold(&self, inputs: &Inputs<'_>, ignores_failures: bool) -> Result<bool, String> {
        let evaluator = Evaluator::new(inputs, MATCH_CONDITIONS_BUDGET);
        let mut errors = Vec::new();
        let mut is_refused = false;
        for condition in &self.0 {
            match evaluator.evaluate(condition) {
                Ok(Val::Bool(false)) => is_refused = true,
                Ok(_) => {}
                Err(Failure::Failed(why)) => errors.push(why),
                Err(Failure::OutOfBudget) if ignores_failures => return Ok(false),
                Err(why @ Failure::OutOfBudget) => return Err(why.to_string()),
            }
        }
        match errors.is_empty() {
            _ if is_refused => Ok(false),
            true => Ok(true),
            false if ignores_failures => Ok(false),
            false => Err(crate::aggregate(&errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn hold(expressions: &[&str], ignores_failures: bool) -> Result<bool, String> {
        let written: Vec<MatchCondition> = expressions
            .iter()
            .map(|expression| MatchCondition { expression: (*expression).to_owned() })
            .collect();
        let object = json!({"a": 1, "many": vec!["x"; 2000]});
        let inputs = Inputs {
            object: &object,
            old_object: &Value::Null,
            request: &Value::Null,
            params: &Value::Null,
            namespace: &Value::Null,
            asker: None,
            variables: &[],
        };
        Conditions::of_webhook(&written).hold(&inputs, ignores_failures)
    }

    #[test]
    fn one_that_does_not_hold_decides_before_those_that_fail() {
        assert_eq!(hold(&[], false), Ok(true));
        assert_eq!(hold(&["object.a == 1", "oldObject == null"], false), Ok(true));
        assert_eq!(hold(&["object.b == 1", "object.a == 2"], false), Ok(false));
        assert_eq!(hold(&["object.b == 1", "true"], true), Ok(false));
        let missing = "expression 'object.b == 1' resulted in error: no such key: b";
        assert_eq!(hold(&["object.b == 1"], false), Err(missing.to_owned()));
        assert_eq!(hold(&["object.b == 1", "object.b == 1"], false), Err(format!("[{missing}, {missing}]")));
    }

    #[test]
    fn conditions_have_a_budget_of_their_own() {
        let costly = "object.many.all(x, x != 'y') && object.many.all(x, x != 'z')";
        let many = vec![costly; 200];
        let spent = hold(&many, false).expect_err("is spent");
        assert_eq!(spent, Failure::OutOfBudget.to_string());
        assert_eq!(hold(&many, true), Ok(false));
    }
}
