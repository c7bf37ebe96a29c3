//! What a Job's status may say, and how it may change: other controllers than upstream's may write it (follows
//! `ValidateJobStatusUpdate` with the options of `getStatusValidationOptions`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use super::indexes;
use crate::validation::{At, same_field};

const COUNTS: [&str; 5] = ["active", "succeeded", "failed", "ready", "terminating"];
/// Conditions that stay once they are true.
const TERMINAL: [&str; 3] = ["Failed", "Complete", "FailureTarget"];

/// Whether a condition of the status is true.
pub fn is_true(status: &Value, condition: &str) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

fn is_finished(status: &Value) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// A status before and after an update.
struct Change<'a> {
    spec: At<'a>,
    status: At<'a>,
    old: &'a Value,
}

pub fn validate_update(obj: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(obj);
    let null = &old["status"];
    let change = Change { spec: root.get("spec"), status: root.get("status"), old: null };
    COUNTS.iter().for_each(|count| change.status.get(count).check_nonnegative(&mut errors));
    change.uncounted_pods(&mut errors);
    change.conditions(&mut errors);
    change.finished(&mut errors);
    change.indexes(&mut errors);
    change.times(&mut errors);
    change.counters(&mut errors);
    errors
}

impl Change<'_> {
    fn now(&self, condition: &str) -> bool {
        is_true(self.status.value, condition)
    }

    fn before(&self, condition: &str) -> bool {
        is_true(self.old, condition)
    }

    fn turned(&self, condition: &str) -> bool {
        self.now(condition) != self.before(condition)
    }

    fn changed(&self, field: &str) -> bool {
        !same_field(self.status.value, self.old, field)
    }

    fn complain(&self, field: &str, why: impl Into<String>, errors: &mut ErrorList) {
        errors.push(Error::invalid_without_value(&self.status.path.child(field), why));
    }

    fn uncounted_pods(&self, errors: &mut ErrorList) {
        let mut seen: Vec<&str> = Vec::new();
        let uncounted = self.status.get("uncountedTerminatedPods");
        for uid in ["succeeded", "failed"].iter().flat_map(|list| uncounted.get(list).items()) {
            match uid.text() {
                "" => errors.push(uid.invalid("must not be empty")),
                text if seen.contains(&text) => errors.push(uid.duplicate()),
                text => seen.push(text),
            }
        }
    }

    fn conditions(&self, errors: &mut ErrorList) {
        let mut never_both = |a: &str, b: &str, check: bool| {
            if check && self.now(a) && self.now(b) {
                self.complain("conditions", format!("cannot set {a}=True and {b}=true conditions"), errors);
            }
        };
        never_both("Complete", "Failed", self.turned("Complete") || self.turned("Failed"));
        never_both("Complete", "FailureTarget", self.turned("Complete") || self.turned("FailureTarget"));
        never_both("SuccessCriteriaMet", "Failed", true);
        never_both("SuccessCriteriaMet", "FailureTarget", true);
        let mut needs = |outcome: &str, reason: &str, check: bool| {
            if check && self.now(outcome) && !self.now(reason) {
                let why = format!("cannot set {outcome}=True condition without the {reason}=true condition");
                self.complain("conditions", why, errors);
            }
        };
        needs("Failed", "FailureTarget", self.turned("Failed") || self.changed("failedIndexes"));
        needs("Complete", "SuccessCriteriaMet", self.turned("Complete") || self.turned("SuccessCriteriaMet"));
        for condition in TERMINAL.iter().filter(|c| self.before(c) && !self.now(c)) {
            let why = format!("cannot disable the terminal {condition}=True condition");
            self.complain("conditions", why, errors);
        }
        if self.before("SuccessCriteriaMet") && !self.now("SuccessCriteriaMet") {
            self.complain("conditions", "cannot disable the SuccessCriteriaMet=True condition", errors);
        }
        if self.before("Complete") && !self.before("SuccessCriteriaMet") && self.now("SuccessCriteriaMet") {
            let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            self.complain("conditions", why, errors);
        }
    }

    fn finished(&self, errors: &mut ErrorList) {
        let status = &self.status;
        if !is_finished(status.value) {
            return;
        }
        let turned = !is_finished(self.old);
        let suspended_empty = self.spec.get("suspend").is_true() && self.spec.get("completions").value == 0;
        if (turned || self.changed("active")) && status.get("active").int() > 0 {
            errors.push(status.get("active").invalid("active>0 is invalid for finished job"));
        }
        let start = status.get("startTime");
        if (turned || self.changed("startTime")) && !suspended_empty && !start.is_set() {
            errors.push(start.required("startTime is required for finished job"));
        }
        let uncounted = status.get("uncountedTerminatedPods");
        let some_uncounted = !uncounted.get("succeeded").is_empty() || !uncounted.get("failed").is_empty();
        if (turned || self.changed("uncountedTerminatedPods")) && some_uncounted {
            errors.push(uncounted.invalid("must be empty for finished job"));
        }
        if (turned || self.changed("terminating")) && status.get("terminating").int() > 0 {
            errors.push(status.get("terminating").invalid("terminating>0 is invalid for finished job"));
        }
    }

    fn indexes(&self, errors: &mut ErrorList) {
        let completions = self.spec.get("completions");
        let (completed, failed) = (self.status.get("completedIndexes"), self.status.get("failedIndexes"));
        let parse = |at: &At, name: &str, errors: &mut ErrorList| {
            indexes::parse(at.text(), completions.int())
                .inspect_err(|error| errors.push(at.invalid(format!("error parsing {name}: {error}"))))
                .ok()
        };
        if self.changed("completedIndexes") && !completed.is_empty() {
            if !super::validation::is_indexed(&self.spec) {
                let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
                errors.push(completed.invalid(why));
            } else if completions.is_set() {
                parse(&completed, "completedIndexes", errors);
            }
        }
        if self.changed("failedIndexes") && failed.is_set() {
            if !self.spec.get("backoffLimitPerIndex").is_set() {
                let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
                errors.push(failed.invalid(why));
            } else if let Some(failed_indexes) = parse(&failed, "failedIndexes", errors) {
                let completed = indexes::parse(completed.text(), completions.int()).unwrap_or_default();
                let both = failed_indexes.into_iter().flatten().find(|i| indexes::contains(&completed, *i));
                if let Some(index) = both {
                    let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
                    errors.push(failed.invalid(why));
                }
            }
        }
    }

    fn times(&self, errors: &mut ErrorList) {
        let (start, completion) = (self.status.get("startTime"), self.status.get("completionTime"));
        if self.turned("Complete") || self.changed("completionTime") {
            if completion.is_set() && !self.now("Complete") {
                let why = "cannot set completionTime when there is no Complete=True condition";
                errors.push(completion.invalid(why));
            }
            if !completion.is_set() && self.now("Complete") {
                errors.push(completion.required("completionTime is required for Complete jobs"));
            }
        }
        let times = self.changed("startTime") || self.changed("completionTime");
        if times && start.is_set() && completion.is_set() && completion.text() < start.text() {
            errors.push(completion.invalid("must be equal to or after `startTime`"));
        }
        if completion.is_set() && !self.old["completionTime"].is_null() && self.changed("completionTime") {
            errors.push(completion.invalid("field is immutable"));
        }
        let resuming = self.before("Suspended") && !self.now("Suspended");
        let fixed = !self.old["startTime"].is_null() && !self.spec.get("suspend").is_true() && !resuming;
        if fixed && self.changed("startTime") {
            errors.push(start.invalid("field is immutable for unsuspended job once set"));
        }
    }

    fn counters(&self, errors: &mut ErrorList) {
        let may_shrink = super::validation::is_indexed(&self.spec)
            && self.spec.get("completions").value == self.spec.get("parallelism").value;
        for (counter, fixed) in [("failed", true), ("succeeded", !may_shrink)] {
            let at = self.status.get(counter);
            if fixed && at.int() < self.old[counter].as_i64().unwrap_or_default() {
                errors.push(Error::invalid(
                    &at.path,
                    at.int(),
                    format!("cannot decrease the {counter} counter"),
                ));
            }
        }
        let (ready, active) = (self.status.get("ready"), self.status.get("active"));
        if (self.changed("ready") || self.changed("active")) && ready.int() > active.int() {
            errors.push(ready.invalid("cannot set more ready pods than active"));
        }
    }
}
