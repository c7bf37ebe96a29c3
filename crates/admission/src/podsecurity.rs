//! PodSecurity: pods meet the Pod Security Standard that their namespace asks for. Workloads that would make other pods
//! are warned about and noted, never refused. Follows `k8s.io/pod-security-admission`.

mod checks;
mod finding;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::meta::{str_at, value_at};
use apimachinery::{GroupKind, GroupResource, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};
use checks::{Pod, Violation, violations};
pub use finding::{Finding, Mode};
use policy::{Level, LevelVersion, Policy, is_labelled};

const ANNOTATIONS: &str = "pod-security.kubernetes.io";
/// More pods of a namespace than this are not looked at when its level changes (upstream: defaultNamespaceMaxPodsToCheck).
const NAMESPACE_PODS_MAX: usize = 3000;
/// Subresources of pods that do not change what a pod may do.
const IGNORED_SUBRESOURCES: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// Kinds that make pods, and where their template is.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Who is not held to any standard.
#[derive(Clone, Debug, Default)]
pub struct Exemptions {
    pub usernames: Vec<String>,
    pub runtime_classes: Vec<String>,
    pub namespaces: Vec<String>,
}

pub struct PodSecurity {
    /// For namespaces whose labels say nothing.
    defaults: Policy,
    exemptions: Exemptions,
}

impl Default for PodSecurity {
    fn default() -> Self {
        PodSecurity { defaults: Policy::PRIVILEGED, exemptions: Exemptions::default() }
    }
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        match (request.group, request.resource) {
            ("", "namespaces") if request.subresource.is_empty() => {
                self.validate_namespace(request, object, world)
            }
            ("", "pods") => self.validate_pod(request, object, world),
            _ if request.subresource.is_empty() => {
                self.validate_template(request, object, world);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl PodSecurity {
    fn validate_namespace(
        &self,
        request: &Request<'_>,
        namespace: &Value,
        world: &dyn World,
    ) -> Result<(), Status> {
        let (policy, errors) = Policy::of_namespace(namespace, &self.defaults);
        let invalid = || Err(Status::invalid(&GroupKind::new("", "Namespace"), request.name, &errors));
        let name = str_at(namespace, &["metadata", "name"]);
        let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
            if !errors.is_empty() {
                return invalid();
            }
            self.warn_of_exemption(request, namespace, name, &policy);
            return Ok(());
        };
        let (old_policy, old_errors) = Policy::of_namespace(old, &self.defaults);
        if !errors.is_empty() && errors != old_errors {
            return invalid();
        }
        let (new, old) = (policy.enforce, old_policy.enforce);
        let relaxed = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if self.exemptions.namespaces.iter().any(|exempt| exempt == name) {
            self.warn_of_exemption(request, namespace, name, &policy);
            return Ok(());
        }
        for warning in self.existing_violations(name, world.list("pods", name), new) {
            request.notes.warn(warning);
        }
        Ok(())
    }

    fn validate_pod(&self, request: &Request<'_>, pod: &Value, world: &dyn World) -> Result<(), Status> {
        if IGNORED_SUBRESOURCES.contains(&request.subresource) || self.is_exempt(request) {
            return Ok(());
        }
        let Some(namespace) = world.get("namespaces", "", request.namespace) else {
            request.notes.find(Finding::Failed { fatal: true });
            let why = format!("failed to lookup namespace {:?}", request.namespace);
            return Err(Status::internal(why));
        };
        let (policy, errors) = Policy::of_namespace(&namespace, &self.defaults);
        if errors.is_empty() && policy.is_privileged() {
            request.notes.find(Finding::evaluated(policy.enforce, Mode::Enforce, true));
            request.notes.annotate(ANNOTATIONS, "enforce-policy", policy.enforce.to_string());
            return Ok(());
        }
        if request.operation == Operation::Update
            && request.old.is_some_and(|old| !is_significant(&pod["spec"], &old["spec"]))
        {
            return Ok(());
        }
        let parts = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
        self.evaluate(request, &policy, &errors, &parts, true)
    }

    fn validate_template(&self, request: &Request<'_>, object: &Value, world: &dyn World) {
        let place = TEMPLATES
            .iter()
            .find(|(group, resource, _)| *group == request.group && *resource == request.resource);
        let Some((_, _, path)) = place else { return };
        if self.is_exempt(request) {
            return;
        }
        let Some(namespace) = world.get("namespaces", "", request.namespace) else {
            request.notes.find(Finding::Failed { fatal: true });
            let why = format!("failed to lookup namespace {:?}: not found", request.namespace);
            request.notes.annotate(ANNOTATIONS, "error", why);
            return;
        };
        let (policy, errors) = Policy::of_namespace(&namespace, &self.defaults);
        let silent = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
        let Some(template) = value_at(object, path).filter(|t| t.is_object()) else { return };
        if errors.is_empty() && silent {
            return;
        }
        let parts = Pod { metadata: &template["metadata"], spec: &template["spec"] };
        // Nothing is enforced on what only makes pods.
        let _allowed = self.evaluate(request, &policy, &errors, &parts, false);
    }

    fn evaluate(
        &self,
        request: &Request<'_>,
        policy: &Policy,
        errors: &[apimachinery::field::Error],
        pod: &Pod<'_>,
        enforce: bool,
    ) -> Result<(), Status> {
        let note = |key: &str, text: String| request.notes.annotate(ANNOTATIONS, key, text);
        let class = str_at(pod.spec, &["runtimeClassName"]);
        if self.exemptions.runtime_classes.iter().any(|exempt| exempt == class) {
            request.notes.find(Finding::Exempt);
            note("exempt", "runtimeClass".to_owned());
            return Ok(());
        }
        if !errors.is_empty() {
            request.notes.find(Finding::Failed { fatal: false });
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            note("error", format!("Failed to parse policy: {}", crate::aggregate(&all)));
        }
        let mut verdict = Ok(());
        if enforce {
            note("enforce-policy", policy.enforce.to_string());
            let found = violations(policy.enforce, pod);
            request.notes.find(Finding::evaluated(policy.enforce, Mode::Enforce, found.is_empty()));
            if !found.is_empty() {
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found));
                let resource = GroupResource::new(request.group, request.resource);
                verdict = Err(Status::forbidden(&resource, named(request, pod), why));
            }
        }
        let would = |mode: LevelVersion| {
            let found = violations(mode, pod);
            let text = || format!("would violate PodSecurity \"{mode}\": {}", details(&found));
            (!found.is_empty()).then(text)
        };
        if let Some(text) = would(policy.audit) {
            request.notes.find(Finding::evaluated(policy.audit, Mode::Audit, false));
            note("audit-violations", text);
        }
        if verdict.is_ok()
            && let Some(text) = would(policy.warn)
        {
            request.notes.find(Finding::evaluated(policy.warn, Mode::Warn, false));
            request.notes.warn(text);
        }
        verdict
    }

    fn is_exempt(&self, request: &Request<'_>) -> bool {
        let is_listed = |list: &[String], name: &str| list.iter().any(|exempt| exempt == name);
        let why = if is_listed(&self.exemptions.namespaces, request.namespace) {
            "namespace"
        } else if is_listed(&self.exemptions.usernames, &request.user.name) {
            "user"
        } else {
            return false;
        };
        request.notes.find(Finding::Exempt);
        request.notes.annotate(ANNOTATIONS, "exempt", why.to_owned());
        true
    }

    /// Says so when labels are set where nobody heeds them.
    fn warn_of_exemption(&self, request: &Request<'_>, namespace: &Value, name: &str, policy: &Policy) {
        if !self.exemptions.namespaces.iter().any(|exempt| exempt == name)
            || policy.is_privileged()
            || policy.is_equivalent(&self.defaults)
        {
            return;
        }
        let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
        let set = modes
            .iter()
            .filter(|(mode, asked)| asked.level != Level::Privileged && is_labelled(namespace, mode));
        let set: Vec<String> = set.map(|(mode, asked)| format!("{mode}={asked}")).collect();
        request.notes.warn(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            set.join(", ")
        ));
    }

    /// What to say about pods that are there already when a namespace becomes stricter.
    fn existing_violations(
        &self,
        namespace: &str,
        pods: Vec<Arc<Value>>,
        enforce: LevelVersion,
    ) -> Vec<String> {
        let pods = self.by_priority(pods);
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(NAMESPACE_PODS_MAX) {
            let against = violations(enforce, &Pod { metadata: &pod["metadata"], spec: &pod["spec"] });
            if against.is_empty() {
                continue;
            }
            let reasons: Vec<&str> = against.iter().map(|violation| violation.reason).collect();
            let name = str_at(pod, &["metadata", "name"]).to_owned();
            let (first, count) = found.entry(reasons.join(", ")).or_insert_with(|| (name.clone(), 0));
            if name < *first {
                *first = name;
            }
            *count += 1;
        }
        let mut warnings = Vec::new();
        if pods.len() > NAMESPACE_PODS_MAX {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {NAMESPACE_PODS_MAX} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut by_pod: Vec<String> = found
            .into_iter()
            .map(|(reasons, (first, count))| match count {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {} other pods): {reasons}", more - 1),
            })
            .collect();
        by_pod.sort_unstable();
        warnings.extend(by_pod);
        warnings
    }

    /// One pod of each controller first: the others are most likely like it.
    fn by_priority(&self, pods: Vec<Arc<Value>>) -> Vec<Arc<Value>> {
        let mut seen = BTreeSet::new();
        let exempt = |pod: &Value| {
            let class = str_at(pod, &["spec", "runtimeClassName"]);
            self.exemptions.runtime_classes.iter().any(|exempt| exempt == class)
        };
        let (mut first, again): (Vec<_>, Vec<_>) =
            pods.into_iter().filter(|pod| !exempt(pod)).partition(|pod| {
                let owners = value_at(pod, &["metadata", "ownerReferences"]).and_then(Value::as_array);
                let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
                controller.is_none_or(|owner| seen.insert(str_at(owner, &["uid"]).to_owned()))
            });
        first.extend(again);
        first
    }
}

/// The name in a refusal: of the request, for what is being created of the object.
fn named<'a>(request: &Request<'a>, pod: &Pod<'a>) -> &'a str {
    if request.name.is_empty() { str_at(pod.metadata, &["name"]) } else { request.name }
}

fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| {
        if violation.detail.is_empty() {
            violation.reason.to_owned()
        } else {
            format!("{} ({})", violation.reason, violation.detail)
        }
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether an update changes what a pod runs. Of what may change in a pod, only images and ephemeral containers do.
fn is_significant(new: &Value, old: &Value) -> bool {
    let list =
        |spec: &'_ Value, field: &str| spec.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let changed = ["containers", "initContainers"].into_iter().any(|field| {
        let (new, old) = (list(new, field), list(old, field));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| new["image"] != old["image"])
    });
    let old = list(old, "ephemeralContainers");
    changed
        || list(new, "ephemeralContainers").iter().any(|container| {
            let before = old.iter().find(|candidate| candidate["name"] == container["name"]);
            before.is_none_or(|before| before["image"] != container["image"])
        })
}

#[cfg(test)]
mod tests;
