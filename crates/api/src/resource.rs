//! The names of every resource: what paths, RBAC rules, messages and clients call it. Catalogue rows and typed views
//! refer to these constants.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use apimachinery::{GroupKind, GroupResource, GroupVersionKind, GroupVersionResource};

/// One resource in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The path segment, for example `pods`.
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
}

impl Resource {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        namespaced: bool,
    ) -> Self {
        Resource { group, version, kind, plural, singular, namespaced }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group, self.kind)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group, self.version, self.plural)
    }

    /// `/api/v1` or `/apis/apps/v1`.
    pub fn group_version_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The collection's path; `namespace` is empty for all namespaces or a cluster-wide resource.
    pub fn collection_path(&self, namespace: &str) -> String {
        let base = self.group_version_path();
        if self.namespaced && !namespace.is_empty() {
            format!("{base}/namespaces/{namespace}/{}", self.plural)
        } else {
            format!("{base}/{}", self.plural)
        }
    }

    /// One object's path.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection_path(namespace))
    }
}

/// Keeps a name once for the life of the process, so that resources made at run time are as cheap to hand around as
/// those of the table. For the names of kinds only, of which there are as many as ever were defined.
pub fn intern(name: &str) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

macro_rules! resources {
    ($($name:ident: $group:literal $version:literal $kind:literal $plural:literal $singular:literal $namespaced:literal;)*) => {
        $(pub const $name: Resource = Resource::new($group, $version, $kind, $plural, $singular, $namespaced);)*
    };
}

resources! {
    BINDINGS: "" "v1" "Binding" "bindings" "binding" true;
    CONFIG_MAPS: "" "v1" "ConfigMap" "configmaps" "configmap" true;
    ENDPOINTS: "" "v1" "Endpoints" "endpoints" "endpoints" true;
    EVENTS: "" "v1" "Event" "events" "event" true;
    NAMESPACES: "" "v1" "Namespace" "namespaces" "namespace" false;
    NODES: "" "v1" "Node" "nodes" "node" false;
    PODS: "" "v1" "Pod" "pods" "pod" true;
    SECRETS: "" "v1" "Secret" "secrets" "secret" true;
    SERVICE_ACCOUNTS: "" "v1" "ServiceAccount" "serviceaccounts" "serviceaccount" true;
    SERVICES: "" "v1" "Service" "services" "service" true;
    DEPLOYMENTS: "apps" "v1" "Deployment" "deployments" "deployment" true;
    COMPONENT_STATUSES: "" "v1" "ComponentStatus" "componentstatuses" "componentstatus" false;
    LIMIT_RANGES: "" "v1" "LimitRange" "limitranges" "limitrange" true;
    POD_TEMPLATES: "" "v1" "PodTemplate" "podtemplates" "podtemplate" true;
    REPLICATION_CONTROLLERS: "" "v1" "ReplicationController" "replicationcontrollers" "replicationcontroller" true;
    RESOURCE_QUOTAS: "" "v1" "ResourceQuota" "resourcequotas" "resourcequota" true;
    CONTROLLER_REVISIONS: "apps" "v1" "ControllerRevision" "controllerrevisions" "controllerrevision" true;
    DAEMON_SETS: "apps" "v1" "DaemonSet" "daemonsets" "daemonset" true;
    STATEFUL_SETS: "apps" "v1" "StatefulSet" "statefulsets" "statefulset" true;
    SCALES: "autoscaling" "v1" "Scale" "scales" "scale" true;
    HORIZONTAL_POD_AUTOSCALERS: "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "horizontalpodautoscaler" true;
    HORIZONTAL_POD_AUTOSCALERS_V1: "autoscaling" "v1" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "horizontalpodautoscaler" true;
    CRON_JOBS: "batch" "v1" "CronJob" "cronjobs" "cronjob" true;
    JOBS: "batch" "v1" "Job" "jobs" "job" true;
    POD_DISRUPTION_BUDGETS: "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets" "poddisruptionbudget" true;
    REPLICA_SETS: "apps" "v1" "ReplicaSet" "replicasets" "replicaset" true;
    TOKEN_REVIEWS: "authentication.k8s.io" "v1" "TokenReview" "tokenreviews" "tokenreview" false;
    SELF_SUBJECT_REVIEWS: "authentication.k8s.io" "v1" "SelfSubjectReview" "selfsubjectreviews" "selfsubjectreview" false;
    LOCAL_SUBJECT_ACCESS_REVIEWS: "authorization.k8s.io" "v1" "LocalSubjectAccessReview" "localsubjectaccessreviews" "localsubjectaccessreview" true;
    SELF_SUBJECT_ACCESS_REVIEWS: "authorization.k8s.io" "v1" "SelfSubjectAccessReview" "selfsubjectaccessreviews" "selfsubjectaccessreview" false;
    SELF_SUBJECT_RULES_REVIEWS: "authorization.k8s.io" "v1" "SelfSubjectRulesReview" "selfsubjectrulesreviews" "selfsubjectrulesreview" false;
    SUBJECT_ACCESS_REVIEWS: "authorization.k8s.io" "v1" "SubjectAccessReview" "subjectaccessreviews" "subjectaccessreview" false;
    LEASES: "coordination.k8s.io" "v1" "Lease" "leases" "lease" true;
    ENDPOINT_SLICES: "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" "endpointslice" true;
    EVENTS_V1: "events.k8s.io" "v1" "Event" "events" "event" true;
    NETWORK_POLICIES: "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" "networkpolicy" true;
    CLUSTER_ROLE_BINDINGS: "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" "clusterrolebinding" false;
    CLUSTER_ROLES: "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" "clusterrole" false;
    ROLE_BINDINGS: "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" "rolebinding" true;
    ROLES: "rbac.authorization.k8s.io" "v1" "Role" "roles" "role" true;
    PERSISTENT_VOLUME_CLAIMS: "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims" "persistentvolumeclaim" true;
    PERSISTENT_VOLUMES: "" "v1" "PersistentVolume" "persistentvolumes" "persistentvolume" false;
    MUTATING_ADMISSION_POLICIES: "admissionregistration.k8s.io" "v1" "MutatingAdmissionPolicy" "mutatingadmissionpolicies" "mutatingadmissionpolicy" false;
    MUTATING_ADMISSION_POLICY_BINDINGS: "admissionregistration.k8s.io" "v1" "MutatingAdmissionPolicyBinding" "mutatingadmissionpolicybindings" "mutatingadmissionpolicybinding" false;
    MUTATING_WEBHOOK_CONFIGURATIONS: "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations" "mutatingwebhookconfiguration" false;
    VALIDATING_ADMISSION_POLICIES: "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicy" "validatingadmissionpolicies" "validatingadmissionpolicy" false;
    VALIDATING_ADMISSION_POLICY_BINDINGS: "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings" "validatingadmissionpolicybinding" false;
    VALIDATING_WEBHOOK_CONFIGURATIONS: "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations" "validatingwebhookconfiguration" false;
    CUSTOM_RESOURCE_DEFINITIONS: "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" "customresourcedefinition" false;
    API_SERVICES: "apiregistration.k8s.io" "v1" "APIService" "apiservices" "apiservice" false;
    CERTIFICATE_SIGNING_REQUESTS: "certificates.k8s.io" "v1" "CertificateSigningRequest" "certificatesigningrequests" "certificatesigningrequest" false;
    FLOW_SCHEMAS: "flowcontrol.apiserver.k8s.io" "v1" "FlowSchema" "flowschemas" "flowschema" false;
    PRIORITY_LEVEL_CONFIGURATIONS: "flowcontrol.apiserver.k8s.io" "v1" "PriorityLevelConfiguration" "prioritylevelconfigurations" "prioritylevelconfiguration" false;
    INGRESS_CLASSES: "networking.k8s.io" "v1" "IngressClass" "ingressclasses" "ingressclass" false;
    INGRESSES: "networking.k8s.io" "v1" "Ingress" "ingresses" "ingress" true;
    IP_ADDRESSES: "networking.k8s.io" "v1" "IPAddress" "ipaddresses" "ipaddress" false;
    SERVICE_CIDRS: "networking.k8s.io" "v1" "ServiceCIDR" "servicecidrs" "servicecidr" false;
    RUNTIME_CLASSES: "node.k8s.io" "v1" "RuntimeClass" "runtimeclasses" "runtimeclass" false;
    DEVICE_CLASSES: "resource.k8s.io" "v1" "DeviceClass" "deviceclasses" "deviceclass" false;
    RESOURCE_CLAIM_TEMPLATES: "resource.k8s.io" "v1" "ResourceClaimTemplate" "resourceclaimtemplates" "resourceclaimtemplate" true;
    RESOURCE_CLAIMS: "resource.k8s.io" "v1" "ResourceClaim" "resourceclaims" "resourceclaim" true;
    RESOURCE_SLICES: "resource.k8s.io" "v1" "ResourceSlice" "resourceslices" "resourceslice" false;
    CSI_DRIVERS: "storage.k8s.io" "v1" "CSIDriver" "csidrivers" "csidriver" false;
    CSI_NODES: "storage.k8s.io" "v1" "CSINode" "csinodes" "csinode" false;
    CSI_STORAGE_CAPACITIES: "storage.k8s.io" "v1" "CSIStorageCapacity" "csistoragecapacities" "csistoragecapacity" true;
    STORAGE_CLASSES: "storage.k8s.io" "v1" "StorageClass" "storageclasses" "storageclass" false;
    VOLUME_ATTACHMENTS: "storage.k8s.io" "v1" "VolumeAttachment" "volumeattachments" "volumeattachment" false;
    VOLUME_ATTRIBUTES_CLASSES: "storage.k8s.io" "v1" "VolumeAttributesClass" "volumeattributesclasses" "volumeattributesclass" false;
    PRIORITY_CLASSES: "scheduling.k8s.io" "v1" "PriorityClass" "priorityclasses" "priorityclass" false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let (first, second) = (intern("widgets"), intern(&["wid", "gets"].concat()));
        assert!(std::ptr::eq(first, second));
    }

    #[test]
    fn paths_follow_group_and_scope() {
        assert_eq!(PODS.path("default", "web"), "/api/v1/namespaces/default/pods/web");
        assert_eq!(PODS.collection_path(""), "/api/v1/pods");
        assert_eq!(DEPLOYMENTS.path("a", "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(NODES.path("", "n"), "/api/v1/nodes/n");
    }
}
