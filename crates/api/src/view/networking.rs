//! `networking.k8s.io/v1`.

use apimachinery::Value;
use apimachinery::meta::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    pub metadata: ObjectMeta,
    pub spec: NetworkPolicySpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    pub pod_selector: LabelSelector,
    pub ingress: Vec<NetworkPolicyIngressRule>,
    pub egress: Vec<NetworkPolicyEgressRule>,
    /// `Ingress`, `Egress`.
    pub policy_types: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyIngressRule {
    /// Empty means every port.
    pub ports: Vec<NetworkPolicyPort>,
    /// Empty means everybody.
    pub from: Vec<NetworkPolicyPeer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyEgressRule {
    pub ports: Vec<NetworkPolicyPort>,
    pub to: Vec<NetworkPolicyPeer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyPort {
    pub protocol: Option<String>,
    /// A number or a container port's name; absent means every port.
    pub port: Value,
    pub end_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyPeer {
    pub pod_selector: Option<LabelSelector>,
    pub namespace_selector: Option<LabelSelector>,
    pub ip_block: Option<IpBlock>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpBlock {
    pub cidr: String,
    pub except: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    pub metadata: ObjectMeta,
    pub spec: IngressSpec,
    pub status: IngressStatus,
}

/// The older way to name a class, which wins where both are used.
const ANNOTATION_CLASS: &str = "kubernetes.io/ingress.class";

impl Ingress {
    /// The name of the class it asks for.
    pub fn class(&self) -> Option<&str> {
        let annotated = self.metadata.annotations.get(ANNOTATION_CLASS).map(String::as_str);
        annotated.filter(|class| !class.is_empty()).or(self.spec.ingress_class_name.as_deref())
    }

    /// All backends it names, the default one first.
    pub fn backends(&self) -> impl Iterator<Item = &IngressBackend> {
        let rules = self.spec.rules.iter().filter_map(|rule| rule.http.as_ref());
        self.spec.default_backend.iter().chain(rules.flat_map(|http| &http.paths).map(|path| &path.backend))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    pub ingress_class_name: Option<String>,
    pub default_backend: Option<IngressBackend>,
    pub tls: Vec<IngressTls>,
    pub rules: Vec<IngressRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressBackend {
    /// Absent where the backend is some other object.
    pub service: Option<IngressServiceBackend>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressServiceBackend {
    pub name: String,
    pub port: ServiceBackendPort,
}

/// Of a Service: either its port's name or its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceBackendPort {
    pub name: String,
    pub number: u16,
}

impl std::fmt::Display for ServiceBackendPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() { write!(f, "{}", self.number) } else { f.write_str(&self.name) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    pub hosts: Vec<String>,
    pub secret_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Empty means every host; `*.` at its beginning stands for one label.
    pub host: String,
    pub http: Option<HttpIngressRuleValue>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpIngressRuleValue {
    pub paths: Vec<HttpIngressPath>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpIngressPath {
    pub path: String,
    /// `Exact`, `Prefix` or `ImplementationSpecific`.
    pub path_type: String,
    pub backend: IngressBackend,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressStatus {
    pub load_balancer: IngressLoadBalancerStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressLoadBalancerStatus {
    pub ingress: Vec<IngressLoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressLoadBalancerIngress {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressClass {
    pub metadata: ObjectMeta,
    pub spec: IngressClassSpec,
}

impl IngressClass {
    /// What the classes of the built-in ingress controller say.
    pub const BUILT_IN_CONTROLLER: &str = "coxswain.dev/ingress";

    /// Whether the built-in ingress controller serves it.
    pub fn is_built_in(&self) -> bool {
        self.spec.controller == Self::BUILT_IN_CONTROLLER
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    pub controller: String,
}

/// A range of addresses for Services, or one per family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCIDR {
    pub metadata: ObjectMeta,
    pub spec: ServiceCIDRSpec,
    pub status: ServiceCIDRStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCIDRSpec {
    pub cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCIDRStatus {
    pub conditions: Vec<Condition>,
}

impl ServiceCIDR {
    /// The condition that says whether addresses are given out of it.
    pub const READY: &str = "Ready";
    /// Why it is not ready: it is being deleted, and addresses of it are still held.
    pub const REASON_TERMINATING: &str = "Terminating";

    /// Whether Services may get addresses of it.
    pub fn gives_addresses(&self) -> bool {
        let is_ready = |c: &Condition| c.kind == Self::READY && c.status == "True";
        !self.metadata.is_being_deleted() && self.status.conditions.iter().any(is_ready)
    }
}

super::view! {
    ServiceCIDR => SERVICE_CIDRS;
    NetworkPolicy => NETWORK_POLICIES;
    Ingress => INGRESSES;
    IngressClass => INGRESS_CLASSES;
}
