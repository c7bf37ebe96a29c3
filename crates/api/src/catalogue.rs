//! The one table of kinds. Routing, discovery, RBAC names, decoding, tables and storage derive from its rows;
//! a kind is added by adding a row.
//!
//! A row's methods are what the request pipeline calls: they join the rules of `ObjectMeta` with those of the kind's
//! [`Strategy`].

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::Value;
use apimachinery::field::{self, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::admissionregistration::Phase;
use crate::autoscaling::horizontalpodautoscaler::HorizontalPodAutoscaler;
use crate::resource::{self, Resource};
use crate::strategy::{Plain, Strategy};
use crate::{
    admissionregistration, apiextensions, apiregistration, apps, autoscaling, batch, certificates,
    conditions, coordination, core, discovery, dynamicresource, flowcontrol, networking, node, objectmeta,
    policy, rbac, scheduling, storage, strategy,
};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces are not deleted by the collection.
const ALL_BUT_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const GET_LIST: &[&str] = &["get", "list"];
const UPDATE: &[&str] = &["update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
pub const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const CATEGORY_ALL: &[&str] = &["all"];
const CATEGORY_EXTENSIONS: &[&str] = &["api-extensions"];

/// A path below an object: `pods/status`, `deployments/scale`.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of what it takes and serves.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The schema definition of that kind.
    pub type_name: &'static str,
    pub verbs: &'static [&'static str],
}

/// The rules of a kind: part of the binary for built-in kinds, shared for custom ones.
pub enum Rules {
    Static(&'static dyn Strategy),
    Shared(Arc<dyn Strategy>),
}

impl Deref for Rules {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Rules::Static(strategy) => *strategy,
            Rules::Shared(strategy) => &**strategy,
        }
    }
}

/// One row: a kind as it is served in one version. The rows of built-in kinds are static; a CustomResourceDefinition's
/// are made when it is first asked for, with interned names.
pub struct Kind {
    pub resource: Resource,
    pub list_kind: &'static str,
    /// Name of the schema definition, for example `io.k8s.api.core.v1.Pod`.
    pub type_name: &'static str,
    pub short_names: Cow<'static, [&'static str]>,
    pub categories: Cow<'static, [&'static str]>,
    pub verbs: &'static [&'static str],
    pub subresources: Cow<'static, [Subresource]>,
    /// Store prefix, shared by versions of one kind; empty for kinds that are answered and never stored.
    pub storage: &'static str,
    pub strategy: Rules,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.resource).finish()
    }
}

impl Kind {
    // What a row was made with is empty and static: forgetting it is how a constant replaces it.

    const fn short(mut self, short_names: &'static [&'static str]) -> Self {
        mem::forget(mem::replace(&mut self.short_names, Cow::Borrowed(short_names)));
        self
    }

    const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        mem::forget(mem::replace(&mut self.categories, Cow::Borrowed(categories)));
        self
    }

    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn subresources(mut self, subresources: &'static [Subresource]) -> Self {
        mem::forget(mem::replace(&mut self.subresources, Cow::Borrowed(subresources)));
        self
    }

    /// Whether objects are kept; the others are computed for each request (reviews, bindings).
    pub fn is_stored(&self) -> bool {
        !self.storage.is_empty()
    }

    /// The row whose version is kept in the store: the first with this prefix.
    pub fn stored(&self) -> &Kind {
        CATALOGUE.iter().find(|kind| self.is_stored() && kind.storage == self.storage).unwrap_or(self)
    }

    /// The warning that every request to a deprecated version earns (follows `deprecation.WarningMessage`).
    pub fn deprecation(&self) -> Option<&'static str> {
        match self.resource {
            resource::COMPONENT_STATUSES => Some("v1 ComponentStatus is deprecated in v1.19+"),
            resource::ENDPOINTS => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            _ => None,
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    fn is_built_in(&self) -> bool {
        self.type_name.starts_with("io.k8s.")
    }

    /// The group that complaints about an object name: that of upstream's own form of it.
    pub fn internal_group(&self) -> &'static str {
        self.strategy.internal_group().unwrap_or(self.resource.group)
    }

    /// Fills in defaults beyond the schema's.
    pub fn default(&self, obj: &mut Value) {
        self.strategy.default(obj);
        if self.is_built_in() {
            conditions::write_times(&self.resource, obj);
        }
    }

    pub fn prepare_for_create(&self, obj: &mut Value) {
        objectmeta::prepare_for_create(obj);
        self.strategy.prepare_for_create(obj);
    }

    pub fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        objectmeta::prepare_for_update(obj, old);
        self.strategy.prepare_for_update(obj, old);
    }

    pub fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        objectmeta::prepare_for_update(obj, old);
        self.strategy.prepare_for_status_update(obj, old);
    }

    /// As the two above for any subresource that updates the object: `status`, `finalize`, `resize`, ...
    pub fn prepare_for_subresource_update(&self, subresource: &str, obj: &mut Value, old: &Value) {
        objectmeta::prepare_for_update(obj, old);
        match subresource {
            "status" => self.strategy.prepare_for_status_update(obj, old),
            other => self.strategy.prepare_for_subresource_update(other, obj, old),
        }
    }

    /// The complaints about a new object; its name must have been generated.
    pub fn validate(&self, obj: &Value) -> ErrorList {
        field::found(|| {
            let mut metadata = objectmeta::validate(obj, self.resource.namespaced, self.strategy.name_rule());
            metadata.extend(self.unqualified_finalizers(obj));
            self.strategy.validate_new(obj, metadata)
        })
    }

    pub fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        self.validate_change(obj, old, || self.strategy.validate_update(obj, old))
    }

    pub fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        self.validate_change(obj, old, || self.strategy.validate_status_update(obj, old))
    }

    pub fn validate_subresource_update(&self, subresource: &str, obj: &Value, old: &Value) -> ErrorList {
        self.validate_change(obj, old, || match subresource {
            "status" => self.strategy.validate_status_update(obj, old),
            other => self.strategy.validate_subresource_update(other, obj, old),
        })
    }

    fn validate_change(&self, obj: &Value, old: &Value, of_kind: impl Fn() -> ErrorList) -> ErrorList {
        field::found(|| {
            let mut errors = self.validate_metadata_update(obj, old);
            errors.extend(of_kind());
            errors
        })
    }

    /// Upstream checks changes of metadata for all kinds, and once more in most kinds' strategies; both complaints
    /// become causes.
    fn validate_metadata_update(&self, obj: &Value, old: &Value) -> ErrorList {
        const CHECKED_ONCE: [&str; 10] = [
            "csinodes",
            "endpointslices",
            "events",
            "flowschemas",
            "jobs",
            "limitranges",
            "persistentvolumes",
            "poddisruptionbudgets",
            "prioritylevelconfigurations",
            "volumeattachments",
        ];
        let errors = objectmeta::validate_update(obj, old);
        let once = CHECKED_ONCE.contains(&self.resource.plural)
            || self.resource.group == crate::resource::VALIDATING_WEBHOOK_CONFIGURATIONS.group;
        if errors.is_empty() || once {
            return errors.into_iter().chain(self.unqualified_finalizers(obj)).collect();
        }
        let again = errors.clone();
        errors.into_iter().chain(again).chain(self.unqualified_finalizers(obj)).collect()
    }

    /// Finalizers must have a domain in front, unless they are Kubernetes' own; some kinds do not ask for that.
    fn unqualified_finalizers(&self, obj: &Value) -> ErrorList {
        const INDIFFERENT: [&str; 5] = [
            "io.k8s.api.admissionregistration.",
            "io.k8s.api.coordination.",
            "io.k8s.api.core.v1.Event",
            "io.k8s.api.node.",
            "io.k8s.api.policy.",
        ];
        let asks = self.type_name.starts_with("io.k8s.api.")
            && !INDIFFERENT.iter().any(|prefix| self.type_name.starts_with(prefix));
        if asks { objectmeta::unqualified_finalizers(obj) } else { ErrorList::new() }
    }

    /// The value of a selectable field; `None` when the kind does not offer it.
    pub fn selectable_field(&self, obj: &Value, field: &str) -> Option<String> {
        match field {
            "metadata.name" => Some(str_at(obj, &["metadata", "name"]).to_owned()),
            "metadata.namespace" if self.resource.namespaced => {
                Some(str_at(obj, &["metadata", "namespace"]).to_owned())
            }
            other => self
                .strategy
                .selectable_fields(obj)
                .into_iter()
                .find(|(name, _)| *name == other)
                .map(|(_, v)| v),
        }
    }

    /// Whether a field selector may name this field.
    pub fn is_selectable(&self, field: &str) -> bool {
        // Kinds without fields of their own share the conversion that knows both.
        let has_namespace = self.resource.namespaced || self.strategy.selectable_field_names().is_empty();
        field == "metadata.name"
            || (field == "metadata.namespace" && has_namespace)
            || self.strategy.selectable_field_names().contains(&field)
    }

    pub fn columns(&self) -> &'static [strategy::Column] {
        self.strategy.columns()
    }

    pub fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        self.strategy.row(obj, now)
    }
}

/// The row of a resource as a path names it.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    CATALOGUE.iter().find(|kind| {
        let r = &kind.resource;
        r.plural == plural && r.group == group && r.version == version
    })
}

/// The row of a kind as `apiVersion` and `kind` name it.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    CATALOGUE.iter().find(|row| {
        let r = &row.resource;
        r.kind == kind && r.group == group && r.version == version
    })
}

/// A stored kind: `row!(PODS, "io.k8s.api.core.v1", "Pod", "pods", strategy)`.
macro_rules! row {
    ($resource:ident, $package:literal, $kind:literal, $storage:literal, $strategy:expr) => {
        Kind {
            resource: resource::$resource,
            list_kind: concat!($kind, "List"),
            type_name: concat!($package, ".", $kind),
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            verbs: ALL,
            subresources: Cow::Borrowed(&[]),
            storage: $storage,
            strategy: Rules::Static(&$strategy),
        }
    };
}

/// A kind that is answered and never stored.
macro_rules! review {
    ($resource:ident, $package:literal, $kind:literal) => {
        row!($resource, $package, $kind, "", Plain).verbs(CREATE)
    };
}

macro_rules! subresource {
    ($name:literal, $group:literal, $package:literal, $kind:literal, $verbs:expr) => {
        Subresource {
            name: $name,
            group: $group,
            version: "v1",
            kind: $kind,
            type_name: concat!($package, ".", $kind),
            verbs: $verbs,
        }
    };
}

const HPA: HorizontalPodAutoscaler = HorizontalPodAutoscaler;

pub const SCALE: Subresource =
    subresource!("scale", "autoscaling", "io.k8s.api.autoscaling.v1", "Scale", GET_PATCH_UPDATE);

/// What the `scale` subresource of every workload shows; found nowhere else.
pub static SCALES: Kind =
    row!(SCALES, "io.k8s.api.autoscaling.v1", "Scale", "", autoscaling::scale::Scale).verbs(GET);

pub static CATALOGUE: &[Kind] = &[
    review!(BINDINGS, "io.k8s.api.core.v1", "Binding"),
    row!(
        COMPONENT_STATUSES,
        "io.k8s.api.core.v1",
        "ComponentStatus",
        "",
        core::componentstatus::ComponentStatus
    )
    .short(&["cs"])
    .verbs(GET_LIST),
    row!(CONFIG_MAPS, "io.k8s.api.core.v1", "ConfigMap", "configmaps", core::configmap::ConfigMap)
        .short(&["cm"]),
    row!(ENDPOINTS, "io.k8s.api.core.v1", "Endpoints", "endpoints", core::endpoints::Endpoints)
        .short(&["ep"]),
    row!(EVENTS, "io.k8s.api.core.v1", "Event", "events", core::event::Event).short(&["ev"]),
    row!(NAMESPACES, "io.k8s.api.core.v1", "Namespace", "namespaces", core::namespace::Namespace)
        .short(&["ns"])
        .verbs(ALL_BUT_COLLECTION)
        .subresources(&[
            subresource!("finalize", "", "io.k8s.api.core.v1", "Namespace", UPDATE),
            subresource!("status", "", "io.k8s.api.core.v1", "Namespace", GET_PATCH_UPDATE),
        ]),
    row!(NODES, "io.k8s.api.core.v1", "Node", "nodes", core::node::Node).short(&["no"]).subresources(&[
        subresource!("proxy", "", "io.k8s.api.core.v1", "NodeProxyOptions", PROXY),
        subresource!("status", "", "io.k8s.api.core.v1", "Node", GET_PATCH_UPDATE),
    ]),
    row!(PODS, "io.k8s.api.core.v1", "Pod", "pods", core::pod::Pod)
        .short(&["po"])
        .categories(CATEGORY_ALL)
        .subresources(&[
            subresource!("attach", "", "io.k8s.api.core.v1", "PodAttachOptions", CONNECT),
            subresource!("binding", "", "io.k8s.api.core.v1", "Binding", CREATE),
            subresource!("ephemeralcontainers", "", "io.k8s.api.core.v1", "Pod", GET_PATCH_UPDATE),
            subresource!("eviction", "policy", "io.k8s.api.policy.v1", "Eviction", CREATE),
            subresource!("exec", "", "io.k8s.api.core.v1", "PodExecOptions", CONNECT),
            subresource!("log", "", "io.k8s.api.core.v1", "Pod", GET),
            subresource!("portforward", "", "io.k8s.api.core.v1", "PodPortForwardOptions", CONNECT),
            subresource!("proxy", "", "io.k8s.api.core.v1", "PodProxyOptions", PROXY),
            subresource!("resize", "", "io.k8s.api.core.v1", "Pod", GET_PATCH_UPDATE),
            subresource!("status", "", "io.k8s.api.core.v1", "Pod", GET_PATCH_UPDATE),
        ]),
    row!(SECRETS, "io.k8s.api.core.v1", "Secret", "secrets", core::secret::Secret),
    row!(
        SERVICE_ACCOUNTS,
        "io.k8s.api.core.v1",
        "ServiceAccount",
        "serviceaccounts",
        core::serviceaccount::ServiceAccount
    )
    .short(&["sa"])
    .subresources(&[subresource!(
        "token",
        "authentication.k8s.io",
        "io.k8s.api.authentication.v1",
        "TokenRequest",
        CREATE
    )]),
    row!(SERVICES, "io.k8s.api.core.v1", "Service", "services", core::service::Service)
        .short(&["svc"])
        .categories(CATEGORY_ALL)
        .subresources(&[
            subresource!("proxy", "", "io.k8s.api.core.v1", "ServiceProxyOptions", PROXY),
            subresource!("status", "", "io.k8s.api.core.v1", "Service", GET_PATCH_UPDATE),
        ]),
    row!(DEPLOYMENTS, "io.k8s.api.apps.v1", "Deployment", "deployments.apps", apps::deployment::Deployment)
        .short(&["deploy"])
        .categories(CATEGORY_ALL)
        .subresources(&[
            SCALE,
            subresource!("status", "apps", "io.k8s.api.apps.v1", "Deployment", GET_PATCH_UPDATE),
        ]),
    row!(REPLICA_SETS, "io.k8s.api.apps.v1", "ReplicaSet", "replicasets.apps", apps::replicaset::ReplicaSet)
        .short(&["rs"])
        .categories(CATEGORY_ALL)
        .subresources(&[
            SCALE,
            subresource!("status", "apps", "io.k8s.api.apps.v1", "ReplicaSet", GET_PATCH_UPDATE),
        ]),
    row!(LIMIT_RANGES, "io.k8s.api.core.v1", "LimitRange", "limitranges", core::limitrange::LimitRange)
        .short(&["limits"]),
    row!(POD_TEMPLATES, "io.k8s.api.core.v1", "PodTemplate", "podtemplates", core::podtemplate::PodTemplate),
    row!(
        REPLICATION_CONTROLLERS,
        "io.k8s.api.core.v1",
        "ReplicationController",
        "replicationcontrollers",
        core::replicationcontroller::ReplicationController
    )
    .short(&["rc"])
    .categories(CATEGORY_ALL)
    .subresources(&[
        SCALE,
        subresource!("status", "", "io.k8s.api.core.v1", "ReplicationController", GET_PATCH_UPDATE),
    ]),
    row!(
        RESOURCE_QUOTAS,
        "io.k8s.api.core.v1",
        "ResourceQuota",
        "resourcequotas",
        core::resourcequota::ResourceQuota
    )
    .short(&["quota"])
    .subresources(&[subresource!("status", "", "io.k8s.api.core.v1", "ResourceQuota", GET_PATCH_UPDATE)]),
    row!(
        CONTROLLER_REVISIONS,
        "io.k8s.api.apps.v1",
        "ControllerRevision",
        "controllerrevisions.apps",
        apps::controllerrevision::ControllerRevision
    ),
    row!(DAEMON_SETS, "io.k8s.api.apps.v1", "DaemonSet", "daemonsets.apps", apps::daemonset::DaemonSet)
        .short(&["ds"])
        .categories(CATEGORY_ALL)
        .subresources(&[subresource!("status", "apps", "io.k8s.api.apps.v1", "DaemonSet", GET_PATCH_UPDATE)]),
    row!(
        STATEFUL_SETS,
        "io.k8s.api.apps.v1",
        "StatefulSet",
        "statefulsets.apps",
        apps::statefulset::StatefulSet
    )
    .short(&["sts"])
    .categories(CATEGORY_ALL)
    .subresources(&[
        SCALE,
        subresource!("status", "apps", "io.k8s.api.apps.v1", "StatefulSet", GET_PATCH_UPDATE),
    ]),
    row!(
        HORIZONTAL_POD_AUTOSCALERS,
        "io.k8s.api.autoscaling.v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers.autoscaling",
        HPA
    )
    .short(&["hpa"])
    .categories(CATEGORY_ALL)
    .subresources(&[Subresource {
        version: "v2",
        ..subresource!(
            "status",
            "autoscaling",
            "io.k8s.api.autoscaling.v2",
            "HorizontalPodAutoscaler",
            GET_PATCH_UPDATE
        )
    }]),
    row!(
        HORIZONTAL_POD_AUTOSCALERS_V1,
        "io.k8s.api.autoscaling.v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers.autoscaling",
        HPA
    )
    .short(&["hpa"])
    .categories(CATEGORY_ALL)
    .subresources(&[subresource!(
        "status",
        "autoscaling",
        "io.k8s.api.autoscaling.v1",
        "HorizontalPodAutoscaler",
        GET_PATCH_UPDATE
    )]),
    row!(CRON_JOBS, "io.k8s.api.batch.v1", "CronJob", "cronjobs.batch", batch::cronjob::CronJob)
        .short(&["cj"])
        .categories(CATEGORY_ALL)
        .subresources(&[subresource!("status", "batch", "io.k8s.api.batch.v1", "CronJob", GET_PATCH_UPDATE)]),
    row!(JOBS, "io.k8s.api.batch.v1", "Job", "jobs.batch", batch::job::Job)
        .categories(CATEGORY_ALL)
        .subresources(&[subresource!("status", "batch", "io.k8s.api.batch.v1", "Job", GET_PATCH_UPDATE)]),
    row!(
        POD_DISRUPTION_BUDGETS,
        "io.k8s.api.policy.v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets.policy",
        policy::PodDisruptionBudget
    )
    .short(&["pdb"])
    .subresources(&[subresource!(
        "status",
        "policy",
        "io.k8s.api.policy.v1",
        "PodDisruptionBudget",
        GET_PATCH_UPDATE
    )]),
    row!(EVENTS_V1, "io.k8s.api.events.v1", "Event", "events", core::event::EventV1).short(&["ev"]),
    review!(SELF_SUBJECT_REVIEWS, "io.k8s.api.authentication.v1", "SelfSubjectReview"),
    review!(TOKEN_REVIEWS, "io.k8s.api.authentication.v1", "TokenReview"),
    review!(LOCAL_SUBJECT_ACCESS_REVIEWS, "io.k8s.api.authorization.v1", "LocalSubjectAccessReview"),
    review!(SELF_SUBJECT_ACCESS_REVIEWS, "io.k8s.api.authorization.v1", "SelfSubjectAccessReview"),
    review!(SELF_SUBJECT_RULES_REVIEWS, "io.k8s.api.authorization.v1", "SelfSubjectRulesReview"),
    review!(SUBJECT_ACCESS_REVIEWS, "io.k8s.api.authorization.v1", "SubjectAccessReview"),
    row!(
        CLUSTER_ROLE_BINDINGS,
        "io.k8s.api.rbac.v1",
        "ClusterRoleBinding",
        "clusterrolebindings.rbac.authorization.k8s.io",
        rbac::RoleBinding { cluster: true }
    ),
    row!(
        CLUSTER_ROLES,
        "io.k8s.api.rbac.v1",
        "ClusterRole",
        "clusterroles.rbac.authorization.k8s.io",
        rbac::Role { cluster: true }
    ),
    row!(
        ROLE_BINDINGS,
        "io.k8s.api.rbac.v1",
        "RoleBinding",
        "rolebindings.rbac.authorization.k8s.io",
        rbac::RoleBinding { cluster: false }
    ),
    row!(
        ROLES,
        "io.k8s.api.rbac.v1",
        "Role",
        "roles.rbac.authorization.k8s.io",
        rbac::Role { cluster: false }
    ),
    row!(
        PRIORITY_CLASSES,
        "io.k8s.api.scheduling.v1",
        "PriorityClass",
        "priorityclasses.scheduling.k8s.io",
        scheduling::PriorityClass
    )
    .short(&["pc"]),
    row!(LEASES, "io.k8s.api.coordination.v1", "Lease", "leases.coordination.k8s.io", coordination::Lease),
    row!(
        ENDPOINT_SLICES,
        "io.k8s.api.discovery.v1",
        "EndpointSlice",
        "endpointslices.discovery.k8s.io",
        discovery::EndpointSlice
    ),
    row!(
        PERSISTENT_VOLUME_CLAIMS,
        "io.k8s.api.core.v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        core::persistentvolumeclaim::PersistentVolumeClaim
    )
    .short(&["pvc"])
    .subresources(&[subresource!(
        "status",
        "",
        "io.k8s.api.core.v1",
        "PersistentVolumeClaim",
        GET_PATCH_UPDATE
    )]),
    row!(
        PERSISTENT_VOLUMES,
        "io.k8s.api.core.v1",
        "PersistentVolume",
        "persistentvolumes",
        core::persistentvolume::PersistentVolume
    )
    .short(&["pv"])
    .subresources(&[subresource!(
        "status",
        "",
        "io.k8s.api.core.v1",
        "PersistentVolume",
        GET_PATCH_UPDATE
    )]),
    row!(
        MUTATING_ADMISSION_POLICIES,
        "io.k8s.api.admissionregistration.v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        admissionregistration::policy::MutatingAdmissionPolicy
    )
    .categories(CATEGORY_EXTENSIONS),
    row!(
        MUTATING_ADMISSION_POLICY_BINDINGS,
        "io.k8s.api.admissionregistration.v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        admissionregistration::binding::AdmissionPolicyBinding(Phase::Mutating)
    )
    .categories(CATEGORY_EXTENSIONS),
    row!(
        MUTATING_WEBHOOK_CONFIGURATIONS,
        "io.k8s.api.admissionregistration.v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        admissionregistration::webhook::WebhookConfiguration(Phase::Mutating)
    )
    .categories(CATEGORY_EXTENSIONS),
    row!(
        VALIDATING_ADMISSION_POLICIES,
        "io.k8s.api.admissionregistration.v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        admissionregistration::policy::ValidatingAdmissionPolicy
    )
    .categories(CATEGORY_EXTENSIONS)
    .subresources(&[subresource!(
        "status",
        "admissionregistration.k8s.io",
        "io.k8s.api.admissionregistration.v1",
        "ValidatingAdmissionPolicy",
        GET_PATCH_UPDATE
    )]),
    row!(
        VALIDATING_ADMISSION_POLICY_BINDINGS,
        "io.k8s.api.admissionregistration.v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        admissionregistration::binding::AdmissionPolicyBinding(Phase::Validating)
    )
    .categories(CATEGORY_EXTENSIONS),
    row!(
        VALIDATING_WEBHOOK_CONFIGURATIONS,
        "io.k8s.api.admissionregistration.v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        admissionregistration::webhook::WebhookConfiguration(Phase::Validating)
    )
    .categories(CATEGORY_EXTENSIONS),
    row!(
        CUSTOM_RESOURCE_DEFINITIONS,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        "CustomResourceDefinition",
        "customresourcedefinitions.apiextensions.k8s.io",
        apiextensions::CustomResourceDefinition
    )
    .short(&["crd", "crds"])
    .categories(CATEGORY_EXTENSIONS)
    .subresources(&[subresource!(
        "status",
        "apiextensions.k8s.io",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        "CustomResourceDefinition",
        GET_PATCH_UPDATE
    )]),
    row!(
        API_SERVICES,
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        "APIService",
        "apiservices.apiregistration.k8s.io",
        apiregistration::APIService
    )
    .categories(CATEGORY_EXTENSIONS)
    .subresources(&[subresource!(
        "status",
        "apiregistration.k8s.io",
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        "APIService",
        GET_PATCH_UPDATE
    )]),
    row!(
        CERTIFICATE_SIGNING_REQUESTS,
        "io.k8s.api.certificates.v1",
        "CertificateSigningRequest",
        "certificatesigningrequests.certificates.k8s.io",
        certificates::CertificateSigningRequest
    )
    .short(&["csr"])
    .subresources(&[
        subresource!(
            "approval",
            "certificates.k8s.io",
            "io.k8s.api.certificates.v1",
            "CertificateSigningRequest",
            GET_PATCH_UPDATE
        ),
        subresource!(
            "status",
            "certificates.k8s.io",
            "io.k8s.api.certificates.v1",
            "CertificateSigningRequest",
            GET_PATCH_UPDATE
        ),
    ]),
    row!(
        FLOW_SCHEMAS,
        "io.k8s.api.flowcontrol.v1",
        "FlowSchema",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        flowcontrol::flowschema::FlowSchema
    )
    .subresources(&[subresource!(
        "status",
        "flowcontrol.apiserver.k8s.io",
        "io.k8s.api.flowcontrol.v1",
        "FlowSchema",
        GET_PATCH_UPDATE
    )]),
    row!(
        PRIORITY_LEVEL_CONFIGURATIONS,
        "io.k8s.api.flowcontrol.v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        flowcontrol::prioritylevel::PriorityLevelConfiguration
    )
    .subresources(&[subresource!(
        "status",
        "flowcontrol.apiserver.k8s.io",
        "io.k8s.api.flowcontrol.v1",
        "PriorityLevelConfiguration",
        GET_PATCH_UPDATE
    )]),
    row!(
        INGRESS_CLASSES,
        "io.k8s.api.networking.v1",
        "IngressClass",
        "ingressclasses.networking.k8s.io",
        networking::ingressclass::IngressClass
    ),
    row!(
        INGRESSES,
        "io.k8s.api.networking.v1",
        "Ingress",
        "ingresses.networking.k8s.io",
        networking::ingress::Ingress
    )
    .short(&["ing"])
    .subresources(&[subresource!(
        "status",
        "networking.k8s.io",
        "io.k8s.api.networking.v1",
        "Ingress",
        GET_PATCH_UPDATE
    )]),
    row!(
        IP_ADDRESSES,
        "io.k8s.api.networking.v1",
        "IPAddress",
        "ipaddresses.networking.k8s.io",
        networking::ipaddress::IPAddress
    )
    .short(&["ip"]),
    row!(
        NETWORK_POLICIES,
        "io.k8s.api.networking.v1",
        "NetworkPolicy",
        "networkpolicies.networking.k8s.io",
        networking::networkpolicy::NetworkPolicy
    )
    .short(&["netpol"]),
    row!(
        SERVICE_CIDRS,
        "io.k8s.api.networking.v1",
        "ServiceCIDR",
        "servicecidrs.networking.k8s.io",
        networking::servicecidr::ServiceCIDR
    )
    .subresources(&[subresource!(
        "status",
        "networking.k8s.io",
        "io.k8s.api.networking.v1",
        "ServiceCIDR",
        GET_PATCH_UPDATE
    )]),
    row!(
        RUNTIME_CLASSES,
        "io.k8s.api.node.v1",
        "RuntimeClass",
        "runtimeclasses.node.k8s.io",
        node::RuntimeClass
    ),
    row!(
        DEVICE_CLASSES,
        "io.k8s.api.resource.v1",
        "DeviceClass",
        "deviceclasses.resource.k8s.io",
        dynamicresource::deviceclass::DeviceClass
    ),
    row!(
        RESOURCE_CLAIM_TEMPLATES,
        "io.k8s.api.resource.v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates.resource.k8s.io",
        dynamicresource::resourceclaim::ResourceClaimTemplate
    ),
    row!(
        RESOURCE_CLAIMS,
        "io.k8s.api.resource.v1",
        "ResourceClaim",
        "resourceclaims.resource.k8s.io",
        dynamicresource::resourceclaim::ResourceClaim
    )
    .subresources(&[subresource!(
        "status",
        "resource.k8s.io",
        "io.k8s.api.resource.v1",
        "ResourceClaim",
        GET_PATCH_UPDATE
    )]),
    row!(
        RESOURCE_SLICES,
        "io.k8s.api.resource.v1",
        "ResourceSlice",
        "resourceslices.resource.k8s.io",
        dynamicresource::resourceslice::ResourceSlice
    ),
    row!(
        CSI_DRIVERS,
        "io.k8s.api.storage.v1",
        "CSIDriver",
        "csidrivers.storage.k8s.io",
        storage::csidriver::CSIDriver
    ),
    row!(CSI_NODES, "io.k8s.api.storage.v1", "CSINode", "csinodes.storage.k8s.io", storage::csinode::CSINode),
    row!(
        CSI_STORAGE_CAPACITIES,
        "io.k8s.api.storage.v1",
        "CSIStorageCapacity",
        "csistoragecapacities.storage.k8s.io",
        storage::csistoragecapacity::CSIStorageCapacity
    ),
    row!(
        STORAGE_CLASSES,
        "io.k8s.api.storage.v1",
        "StorageClass",
        "storageclasses.storage.k8s.io",
        storage::storageclass::StorageClass
    )
    .short(&["sc"]),
    row!(
        VOLUME_ATTACHMENTS,
        "io.k8s.api.storage.v1",
        "VolumeAttachment",
        "volumeattachments.storage.k8s.io",
        storage::volumeattachment::VolumeAttachment
    )
    .subresources(&[subresource!(
        "status",
        "storage.k8s.io",
        "io.k8s.api.storage.v1",
        "VolumeAttachment",
        GET_PATCH_UPDATE
    )]),
    row!(
        VOLUME_ATTRIBUTES_CLASSES,
        "io.k8s.api.storage.v1",
        "VolumeAttributesClass",
        "volumeattributesclasses.storage.k8s.io",
        storage::volumeattributesclass::VolumeAttributesClass
    )
    .short(&["vac"]),
];

#[cfg(test)]
mod tests;
