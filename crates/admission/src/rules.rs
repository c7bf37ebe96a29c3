//! Which requests the rules of webhooks and policies are about. Follows `predicates/rules.Matcher` and the matchers of
//! namespace and object selectors.

use apimachinery::gvk::{GroupVersionKind, GroupVersionResource};
use apimachinery::meta::{LabelSelector, StringMap, str_at};
use apimachinery::{GroupResource, Status, Value};
use auth::UserInfo;
use serde::Deserialize;

use crate::request::{Operation, World};

/// The group whose objects configure admission; they are never sent to it, lest a bad one lock everybody out.
const CONFIGURATION_GROUP: &str = "admissionregistration.k8s.io";
const CONFIGURATION_KINDS: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// A request as those who are asked about it see it.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub operation: Operation,
    pub kind: GroupVersionKind,
    pub resource: GroupVersionResource,
    pub subresource: String,
    /// For a Namespace itself its own name.
    pub namespace: String,
    pub name: String,
    pub user: UserInfo,
    pub dry_run: bool,
    /// The request's options, `CreateOptions` and the like.
    pub options: Value,
    /// The same objects in other versions.
    pub equivalents: Vec<(GroupVersionResource, GroupVersionKind)>,
}

impl Attributes {
    pub fn configures_admission(&self) -> bool {
        self.kind.group == CONFIGURATION_GROUP && CONFIGURATION_KINDS.contains(&self.kind.kind.as_str())
    }

    /// The 403 with which those who are asked refuse (upstream: admission.NewForbidden). What has no name yet is called
    /// by the prefix from which one is generated.
    pub fn forbidden(&self, object: &Value, reason: impl std::fmt::Display) -> Status {
        let metadata = |field| str_at(object, &["metadata", field]);
        let names = [self.name.as_str(), metadata("name"), metadata("generateName"), "Unknown"];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Status::forbidden(&GroupResource::new(&*self.resource.group, &*self.resource.resource), name, reason)
    }

    fn is_namespace(&self) -> bool {
        self.resource.group.is_empty() && self.resource.resource == "namespaces"
    }
}

/// `RuleWithOperations`, and with names `NamedRuleWithOperations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub operations: Vec<String>,
    pub api_groups: Vec<String>,
    pub api_versions: Vec<String>,
    pub resources: Vec<String>,
    pub scope: Option<String>,
    /// All when empty; only policies have these.
    pub resource_names: Vec<String>,
}

impl Rule {
    fn matches(&self, request: &Attributes, resource: &GroupVersionResource) -> bool {
        let any = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
        let named = self.resource_names.is_empty() || self.resource_names.contains(&request.name);
        self.is_in_scope(request)
            && any(&self.operations, request.operation.name())
            && any(&self.api_groups, &resource.group)
            && any(&self.api_versions, &resource.version)
            && self.has_resource(resource, &request.subresource)
            && named
    }

    fn is_in_scope(&self, request: &Attributes) -> bool {
        let cluster = request.is_namespace() || request.namespace.is_empty();
        match self.scope.as_deref() {
            None | Some("*") => true,
            Some("Namespaced") => !cluster,
            Some("Cluster") => cluster,
            Some(_) => false,
        }
    }

    fn has_resource(&self, resource: &GroupVersionResource, subresource: &str) -> bool {
        self.resources.iter().any(|pattern| {
            let (of, part) = pattern.split_once('/').unwrap_or((pattern, ""));
            (of == "*" || of == resource.resource) && (part == "*" || part == subresource)
        })
    }
}

/// In which form somebody wants to see a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    pub resource: GroupVersionResource,
    pub kind: GroupVersionKind,
}

/// The form in which the rules match the request, if they do. With `equivalent` they may speak of another version.
pub fn matched(rules: &[Rule], equivalent: bool, request: &Attributes) -> Option<Matched> {
    if rules.iter().any(|rule| rule.matches(request, &request.resource)) {
        return Some(Matched { resource: request.resource.clone(), kind: request.kind.clone() });
    }
    if !equivalent {
        return None;
    }
    rules.iter().find_map(|rule| {
        let found = request.equivalents.iter().find(|(resource, _)| rule.matches(request, resource));
        found.map(|(resource, kind)| Matched { resource: resource.clone(), kind: kind.clone() })
    })
}

/// Whether the namespace of the request is meant. Objects outside of namespaces are, but Namespaces are looked at.
pub fn namespace_selected(
    selector: &LabelSelector,
    request: &Attributes,
    object: &Value,
    world: &dyn World,
) -> Result<bool, Status> {
    if request.namespace.is_empty() && request.resource.resource != "namespaces" || selector.is_empty() {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if request.is_namespace() && request.subresource.is_empty() && writes {
        return Ok(selector.matches(&labels(object)));
    }
    match world.get("namespaces", "", &request.namespace) {
        Some(namespace) => Ok(selector.matches(&labels(&namespace))),
        None => Err(Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace)),
    }
}

/// Whether the object is meant, as it is to be or as it was.
pub fn object_selected(selector: &LabelSelector, object: &Value, old: Option<&Value>) -> bool {
    let is_meant = |object: &Value| object.is_object() && selector.matches(&labels(object));
    selector.is_empty() || is_meant(object) || old.is_some_and(is_meant)
}

fn labels(object: &Value) -> StringMap {
    let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::Objects;

    pub(crate) fn attributes(operation: Operation, resource: &str, namespace: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            operation,
            kind: GroupVersionKind::new("apps", "v1", "Deployment"),
            resource: GroupVersionResource::new("apps", "v1", resource),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: "x".to_owned(),
            user: UserInfo::anonymous(),
            dry_run: false,
            options: Value::Null,
            equivalents: vec![(
                GroupVersionResource::new("apps", "v1beta1", resource),
                GroupVersionKind::new("apps", "v1beta1", "Deployment"),
            )],
        }
    }

    fn rule(operations: &[&str], versions: &[&str], resources: &[&str], scope: Option<&str>) -> Rule {
        let owned = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Rule {
            operations: owned(operations),
            api_groups: owned(&["apps"]),
            api_versions: owned(versions),
            resources: owned(resources),
            scope: scope.map(str::to_owned),
            resource_names: Vec::new(),
        }
    }

    #[test]
    fn rules_name_operations_versions_resources_and_scopes() {
        let create = attributes(Operation::Create, "deployments", "ns");
        let status = attributes(Operation::Update, "deployments/status", "ns");
        let table = [
            (rule(&["*"], &["*"], &["*"], None), &create, true),
            (rule(&["*"], &["*"], &["*"], None), &status, false),
            (rule(&["*"], &["*"], &["*/*"], None), &status, true),
            (rule(&["*"], &["*"], &["deployments/status"], None), &status, true),
            (rule(&["*"], &["*"], &["*/status"], Some("Namespaced")), &status, true),
            (rule(&["CREATE"], &["v1"], &["deployments"], Some("*")), &create, true),
            (rule(&["UPDATE"], &["v1"], &["deployments"], None), &create, false),
            (rule(&["CREATE"], &["v1"], &["deployments"], Some("Cluster")), &create, false),
            (rule(&["CREATE"], &["v2"], &["deployments"], None), &create, false),
        ];
        for (rule, request, expect) in table {
            assert_eq!(matched(std::slice::from_ref(&rule), false, request).is_some(), expect, "{rule:?}");
        }
        let other = rule(&["CREATE"], &["v1beta1"], &["deployments"], None);
        assert_eq!(matched(std::slice::from_ref(&other), false, &create), None);
        let found = matched(&[other], true, &create).expect("matches in another version");
        assert_eq!(found.kind.version, "v1beta1");
    }

    #[test]
    fn selectors_look_at_the_namespace_and_at_both_states_of_the_object() {
        let selector =
            LabelSelector { match_labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() };
        let request = attributes(Operation::Create, "deployments", "ns");
        let namespace = json!({"metadata": {"name": "ns", "labels": {"a": "b"}}});
        let world = Objects::default().with("namespaces", namespace);
        assert_eq!(namespace_selected(&selector, &request, &Value::Null, &world), Ok(true));
        let gone = namespace_selected(&selector, &request, &Value::Null, &Objects::default());
        assert_eq!(gone.expect_err("is not there").code, 404);
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        assert!(object_selected(&selector, &json!({"metadata": {}}), Some(&labelled)));
        assert!(!object_selected(&selector, &json!({"metadata": {}}), None));
    }
}
