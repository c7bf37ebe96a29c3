//! Containers of all three kinds: what they share, and what each kind may not have (follows `validateContainers`,
//! `validateInitContainers`, `validateEphemeralContainers`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};

use super::{Context, env, handler, requirements, security, volume};
use crate::core::pod::resources::is_sidecar;
use crate::validation::{At, PROTOCOLS, dns1123_label, port_name, port_number};

pub const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const TERMINATION_MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const CONTAINER_RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_RULE_ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];
const EXIT_CODE_OPERATORS: [&str; 2] = ["In", "NotIn"];
const RESIZE_RESOURCES: [&str; 2] = ["cpu", "memory"];
const RESIZE_POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
/// Rules a container may have, and exit codes a rule may name.
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// What an ephemeral container may not have, in the order of the type's fields.
const NOT_FOR_EPHEMERAL: [&str; 6] =
    ["ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub fn validate_all(spec: &At, context: &Context, errors: &mut ErrorList) {
    let containers = spec.get("containers");
    if containers.is_empty() {
        errors.push(containers.required(""));
    } else {
        regular(&containers, context, errors);
    }
    init(spec, context, errors);
    ephemeral(spec, context, errors);
}

fn regular(containers: &At, context: &Context, errors: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for container in containers.items() {
        common(&container, context, errors);
        let name = container.get("name");
        if !names.insert(name.text()) {
            errors.push(name.duplicate());
        }
        running(&container, context, errors);
        restart_policy(&container, errors);
    }
    host_port_conflicts(containers.items(), errors);
}

fn init(spec: &At, context: &Context, errors: &mut ErrorList) {
    let containers = spec.get("initContainers");
    let regular = spec.get("containers");
    let mut names: BTreeSet<&str> = regular.items().map(|c| c.get("name").text()).collect();
    for container in containers.items() {
        common(&container, context, errors);
        restart_policy(&container, errors);
        let name = container.get("name");
        if !name.is_empty() && !names.insert(name.text()) {
            errors.push(name.duplicate());
        }
        // Init containers run one after another, so each conflicts only with itself.
        host_port_conflicts(std::iter::once(container.clone()), errors);
        if is_sidecar(container.value) {
            running(&container, context, errors);
        } else {
            not_running(&container, errors);
        }
    }
}

/// What only a container that stays may have.
fn not_running(container: &At, errors: &mut ErrorList) {
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.get(field);
        if at.is_set() {
            errors.push(at.forbidden("may not be set for init containers without restartPolicy=Always"));
        }
    }
    for policy in container.get("resizePolicy").items() {
        let restart = policy.get("restartPolicy");
        if restart.text() == "RestartContainer" {
            errors.push(
                restart.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers"),
            );
        }
    }
}

fn running(container: &At, context: &Context, errors: &mut ErrorList) {
    if let Some(lifecycle) = container.field("lifecycle") {
        handler::lifecycle(&lifecycle, context, errors);
    }
    for field in PROBES {
        if let Some(probe) = container.field(field) {
            handler::probe(&probe, field == "readinessProbe", context, errors);
        }
    }
}

fn ephemeral(spec: &At, context: &Context, errors: &mut ErrorList) {
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.get(list).items())
        .map(|c| c.get("name").text())
        .collect();
    let mut names = others.clone();
    for container in spec.get("ephemeralContainers").items() {
        common(&container, context, errors);
        image_without_spaces(&container, errors);
        let name = container.get("name");
        if !names.insert(name.text()) {
            errors.push(name.duplicate());
        }
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            errors.push(target.not_found());
        }
        not_for_ephemeral(&container, errors);
    }
}

fn not_for_ephemeral(container: &At, errors: &mut ErrorList) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    for field in NOT_FOR_EPHEMERAL {
        let at = container.get(field);
        // Defaulting writes an empty `resources`, which is as good as none.
        if at.is_set()
            && !(at.map().is_some_and(|m| m.is_empty()))
            && !at.value.as_array().is_some_and(Vec::is_empty)
        {
            errors.push(at.forbidden(DETAIL));
        }
    }
    for mount in container.get("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.get(field).is_empty() {
                errors.push(mount.get(field).forbidden(DETAIL));
            }
        }
    }
}

/// What holds for every container (follows `validateContainerCommon`).
fn common(container: &At, context: &Context, errors: &mut ErrorList) {
    let name = container.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        dns1123_label(&name, errors);
    }
    if container.get("image").is_empty() {
        errors.push(container.get("image").required(""));
    }
    container.get("terminationMessagePolicy").check_enum_of(&TERMINATION_MESSAGE_POLICIES, errors);
    ports(&container.get("ports"), errors);
    env::variables(&container.get("env"), errors);
    env::sources(&container.get("envFrom"), errors);
    volume::mounts(container, context, errors);
    volume::devices(container, context, errors);
    container.get("imagePullPolicy").check_enum(&PULL_POLICIES, errors);
    requirements::container(&container.get("resources"), context.spec, errors);
    resize_policy(&container.get("resizePolicy"), context, errors);
    security::container(&container.get("securityContext"), context, errors);
}

fn ports(ports: &At, errors: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let before = errors.len();
            name.check(port_name, errors);
            if errors.len() == before && !names.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
        let number = port.get("containerPort");
        if number.int() == 0 {
            errors.push(number.required(""));
        } else {
            port_number(&number, errors);
        }
        if port.get("hostPort").int() != 0 {
            port_number(&port.get("hostPort"), errors);
        }
        port.get("protocol").check_enum(&PROTOCOLS, errors);
    }
}

/// No two containers can take the same port of the host.
fn host_port_conflicts<'a>(containers: impl Iterator<Item = At<'a>>, errors: &mut ErrorList) {
    let mut taken = BTreeSet::new();
    for container in containers {
        for port in container.get("ports").items() {
            let host_port = port.get("hostPort");
            if host_port.int() == 0 {
                continue;
            }
            let key =
                format!("{}/{}/{}", port.get("protocol").text(), port.get("hostIP").text(), host_port.int());
            if taken.contains(&key) {
                errors.push(Error::duplicate(&host_port.path, key));
            } else {
                taken.insert(key);
            }
        }
    }
}

fn resize_policy(policies: &At, context: &Context, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let resource = policy.get("resourceName").text();
        if !seen.insert(resource) {
            errors.push(Error::duplicate(&policy.path, resource));
        }
        policy.get("resourceName").under(&policies.path).check_enum(&RESIZE_RESOURCES, errors);
        let restart = policy.get("restartPolicy").under(&policies.path);
        restart.check_enum(&RESIZE_POLICIES, errors);
        if context.restart_policy == "Never" && restart.text() != "NotRequired" {
            errors.push(restart.invalid("must be 'NotRequired' when pod `restartPolicy` is 'Never'"));
        }
    }
}

/// A container's own restart policy and rules (follows `validateContainerRestartPolicy`).
fn restart_policy(container: &At, errors: &mut ErrorList) {
    let policy = container.get("restartPolicy");
    let rules = container.get("restartPolicyRules");
    if policy.is_set() {
        policy.check_optional_enum(&CONTAINER_RESTART_POLICIES, errors);
    } else if !rules.is_empty() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    if rules.len() > RESTART_RULES_MAX {
        errors.push(Error::too_many(&rules.path, rules.len(), RESTART_RULES_MAX));
    }
    for rule in rules.items() {
        let action = rule.get("action");
        if !RESTART_RULE_ACTIONS.contains(&action.text()) {
            errors.push(Error::not_supported(&action.path, action.text(), &RESTART_RULE_ACTIONS));
        }
        let Some(exit_codes) = rule.field("exitCodes") else {
            errors.push(rule.get("exitCodes").required("must be specified"));
            continue;
        };
        let operator = exit_codes.get("operator");
        if !EXIT_CODE_OPERATORS.contains(&operator.text()) {
            errors.push(Error::not_supported(&operator.path, operator.text(), &EXIT_CODE_OPERATORS));
        }
        let values = exit_codes.get("values");
        if values.len() > EXIT_CODES_MAX {
            errors.push(Error::too_many(&values.path, values.len(), EXIT_CODES_MAX));
        }
    }
}

/// A template may carry a padded image for others to replace; a pod may not.
pub fn image_without_spaces(container: &At, errors: &mut ErrorList) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}
