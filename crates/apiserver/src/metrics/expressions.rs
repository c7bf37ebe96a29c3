//! How long expressions take: the rules of custom resources, and those of policies.

use std::fmt::Result;
use std::time::Duration;

use admission::policy::Check;
use client::metrics::DEF_BUCKETS;

use crate::prometheus::{Counters, Histograms, Label, Metric};

/// Upper bounds in seconds of what the expressions of policies take (upstream's own).
const CHECK_BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

const COMPILATION: Metric<0> = Metric {
    name: "apiserver_cel_compilation_duration_seconds",
    help: "[BETA] CEL compilation time in seconds.",
    labels: [],
};
const EVALUATION: Metric<0> = Metric {
    name: "apiserver_cel_evaluation_duration_seconds",
    help: "[BETA] CEL evaluation time in seconds.",
    labels: [],
};
const VALIDATIONS: Metric<4> = Metric {
    name: "apiserver_validating_admission_policy_check_total",
    help: "[BETA] Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
    labels: ["enforcement_action", "error_type", "policy", "policy_binding"],
};
const VALIDATIONS_TOOK: Metric<4> = Metric {
    name: "apiserver_validating_admission_policy_check_duration_seconds",
    help: "[BETA] Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
    ..VALIDATIONS
};
const MUTATIONS: Metric<3> = Metric {
    name: "apiserver_mutating_admission_policy_check_total",
    help: "[ALPHA] Mutation admission policy check total, labeled by policy and further identified by binding.",
    labels: ["error_type", "policy", "policy_binding"],
};
const MUTATIONS_TOOK: Metric<3> = Metric {
    name: "apiserver_mutating_admission_policy_check_duration_seconds",
    help: "[ALPHA] Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
    ..MUTATIONS
};

/// Rules of custom resources. All of a version are compiled in one go, and those about an object evaluated in one.
#[derive(Debug)]
pub struct Rules {
    compilation: Histograms<0>,
    evaluation: Histograms<0>,
}

impl Default for Rules {
    fn default() -> Self {
        let histogram = |metric| Histograms::new(metric, &DEF_BUCKETS);
        Rules { compilation: histogram(COMPILATION), evaluation: histogram(EVALUATION) }
    }
}

impl Rules {
    pub fn compiled(&self, took: Duration) {
        self.compilation.observe([], took.as_secs_f64());
    }

    pub fn evaluated(&self, took: Duration) {
        self.evaluation.observe([], took.as_secs_f64());
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.compilation.write(out)?;
        self.evaluation.write(out)
    }
}

/// Policies of both kinds.
#[derive(Debug)]
pub struct Policies {
    validations: Counters<4>,
    validations_took: Histograms<4>,
    mutations: Counters<3>,
    mutations_took: Histograms<3>,
}

impl Default for Policies {
    fn default() -> Self {
        Policies {
            validations: Counters::new(VALIDATIONS),
            validations_took: Histograms::new(VALIDATIONS_TOOK, &CHECK_BUCKETS),
            mutations: Counters::new(MUTATIONS),
            mutations_took: Histograms::new(MUTATIONS_TOOK, &CHECK_BUCKETS),
        }
    }
}

impl Policies {
    pub fn checked(&self, check: &Check<'_>) {
        let name = |name: &str| Label::from(name.to_owned());
        let (policy, binding, took) = (name(check.policy), name(check.binding), check.took.as_secs_f64());
        match check.action {
            Some(action) => {
                let labels = [action.into(), check.error_type.into(), policy, binding];
                self.validations.add(labels.clone(), 1);
                self.validations_took.observe(labels, took);
            }
            None => {
                let labels = [check.error_type.into(), policy, binding];
                self.mutations.add(labels.clone(), 1);
                self.mutations_took.observe(labels, took);
            }
        }
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.validations.write(out)?;
        self.validations_took.write(out)?;
        self.mutations.write(out)?;
        self.mutations_took.write(out)
    }
}
