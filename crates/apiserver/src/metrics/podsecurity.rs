//! What PodSecurity finds, under upstream's metric names.

use std::fmt::Result;

use admission::podsecurity::Finding;
use apimachinery::version::MINOR;

use crate::prometheus::{Counters, Label, Metric};

const EVALUATIONS: Metric<7> = Metric {
    name: "pod_security_evaluations_total",
    help: "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.",
    labels: [
        "decision",
        "mode",
        "policy_level",
        "policy_version",
        "request_operation",
        "resource",
        "subresource",
    ],
};
const EXEMPTIONS: Metric<3> = Metric {
    name: "pod_security_exemptions_total",
    help: "[ALPHA] Number of exempt requests, not counting ignored or out of scope requests.",
    labels: ["request_operation", "resource", "subresource"],
};
const ERRORS: Metric<4> = Metric {
    name: "pod_security_errors_total",
    help: "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
    labels: ["fatal", "request_operation", "resource", "subresource"],
};

#[derive(Debug)]
pub struct PodSecurity {
    evaluations: Counters<7>,
    exemptions: Counters<3>,
    errors: Counters<4>,
}

impl Default for PodSecurity {
    fn default() -> Self {
        PodSecurity {
            evaluations: Counters::new(EVALUATIONS),
            exemptions: Counters::new(EXEMPTIONS),
            errors: Counters::new(ERRORS),
        }
    }
}

fn version_label(minor: Option<u32>) -> Label {
    let is_future = |minor| MINOR.parse().is_ok_and(|own: u32| minor > own);
    match minor {
        None => "latest".into(),
        Some(minor) if is_future(minor) => "future".into(),
        Some(minor) => format!("v1.{minor}").into(),
    }
}

impl PodSecurity {
    pub fn found(&self, finding: Finding, request: &admission::Request<'_>) {
        let resource = match (request.group, request.resource) {
            ("", "pods") => "pod",
            ("", "namespaces") => "namespace",
            // Whatever else is looked at makes pods.
            _ => "controller",
        };
        let operation = request.operation.name().to_lowercase();
        let about: [Label; 3] = [operation.into(), resource.into(), request.subresource.to_owned().into()];
        match finding {
            Finding::Evaluated { level, minor, mode, allowed } => {
                let decision = if allowed { "allow" } else { "deny" };
                let [operation, resource, subresource] = about;
                let (level, version) = (level.into(), version_label(minor));
                let labels =
                    [decision.into(), mode.name().into(), level, version, operation, resource, subresource];
                self.evaluations.add(labels, 1);
            }
            Finding::Exempt => self.exemptions.add(about, 1),
            Finding::Failed { fatal } => {
                let [operation, resource, subresource] = about;
                self.errors.add([fatal.to_string().into(), operation, resource, subresource], 1);
            }
        }
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.evaluations.write(out)?;
        self.exemptions.write(out)?;
        self.errors.write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart_up_to_our_own() {
        for (minor, expect) in
            [(None, "latest"), (Some(25), "v1.25"), (Some(36), "v1.36"), (Some(37), "future")]
        {
            assert_eq!(version_label(minor), expect);
        }
    }
}
