//! Those outside who change objects are asked in two rounds: the second is for what has been changed after they were
//! asked. Follows `policyReinvokeContext` and `webhookReinvokeContext`.

use std::collections::BTreeSet;

use apimachinery::Value;

/// What is remembered between the two rounds.
#[derive(Debug, Default)]
pub struct Rounds {
    is_second: bool,
    /// What the last one of the round before has left.
    output: Value,
    /// Those that were asked and want to be asked again if need be.
    willing: BTreeSet<String>,
    /// Those that are asked again in the second round.
    again: BTreeSet<String>,
}

impl Rounds {
    /// Begins the second round.
    pub fn second(&mut self) {
        self.is_second = true;
    }

    /// 0 or 1.
    pub fn number(&self) -> usize {
        usize::from(self.is_second)
    }

    /// A round begins with this object, which others may have changed since.
    pub fn begin(&mut self, object: &Value) {
        if self.is_second && self.output != *object {
            self.somebody_changed();
        }
    }

    /// Whether this one is asked in this round.
    pub fn includes(&self, id: &str) -> bool {
        !self.is_second || self.again.contains(id)
    }

    pub fn somebody_changed(&mut self) {
        self.again.append(&mut self.willing);
    }

    /// Remembers one that wants to be asked again.
    pub fn may_ask_again(&mut self, id: String) {
        self.willing.insert(id);
    }

    pub fn end(&mut self, object: &Value) {
        self.output = object.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn those_are_asked_again_after_whom_somebody_changed_the_object() {
        let mut rounds = Rounds::default();
        rounds.begin(&json!(1));
        for id in ["a", "b"] {
            assert!(rounds.includes(id));
            rounds.may_ask_again(id.to_owned());
        }
        rounds.somebody_changed();
        rounds.may_ask_again("c".to_owned());
        rounds.end(&json!(2));
        rounds.second();
        rounds.begin(&json!(2));
        let asked = |rounds: &Rounds| ["a", "b", "c"].map(|id| rounds.includes(id));
        assert_eq!(asked(&rounds), [true, true, false]);
        rounds.begin(&json!(3));
        assert_eq!(asked(&rounds), [true, true, true]);
    }
}
