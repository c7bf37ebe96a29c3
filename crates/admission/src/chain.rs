//! The plugins in their order, and which of them run.

use apimachinery::{Status, Value};

use crate::alwayspullimages::AlwaysPullImages;
use crate::antiaffinity::LimitPodHardAntiAffinityTopology;
use crate::certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
};
use crate::defaultclass::{DefaultIngressClass, DefaultStorageClass};
use crate::defaulttolerationseconds::DefaultTolerationSeconds;
use crate::denyserviceexternalips::DenyServiceExternalIPs;
use crate::extendedresourcetoleration::ExtendedResourceToleration;
use crate::lifecycle::NamespaceLifecycle;
use crate::limitranger::LimitRanger;
use crate::noderestriction::NodeRestriction;
use crate::nodetaint::TaintNodesByCondition;
use crate::ownerreferences::OwnerReferencesPermissionEnforcement;
use crate::persistentvolumeclaimresize::PersistentVolumeClaimResize;
use crate::podresize::PodResizeValidator;
use crate::podsecurity::PodSecurity;
use crate::podtopologylabels::PodTopologyLabels;
use crate::priority::Priority;
use crate::request::{Request, World};
use crate::resourcequota;
use crate::runtimeclass::RuntimeClass;
use crate::serviceaccount::ServiceAccount;
use crate::storageobjectinuseprotection::StorageObjectInUseProtection;

/// Upstream's names of the plugins that ask others, which the API server carries out after all that decide by
/// themselves, as their place at the end of the order has it.
pub const MUTATING_POLICY: &str = "MutatingAdmissionPolicy";
pub const MUTATING_WEBHOOK: &str = "MutatingAdmissionWebhook";
pub const VALIDATING_POLICY: &str = "ValidatingAdmissionPolicy";
pub const VALIDATING_WEBHOOK: &str = "ValidatingAdmissionWebhook";

/// One admission plugin. Both halves do nothing unless it says otherwise.
pub trait Plugin: Send + Sync {
    /// Upstream's name, as `--enable-admission-plugins` takes it.
    fn name(&self) -> &'static str;

    /// May change the object, or refuse the request.
    fn admit(&self, _request: &Request<'_>, _object: &mut Value, _world: &dyn World) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the request; sees the object as it would be stored.
    fn validate(&self, _request: &Request<'_>, _object: &Value, _world: &dyn World) -> Result<(), Status> {
        Ok(())
    }
}

/// A row of the table of plugins.
struct Row {
    name: &'static str,
    /// Whether it runs unless the operator says otherwise.
    default_on: bool,
    /// None for those that ask others.
    make: Option<fn() -> Box<dyn Plugin>>,
}

const fn on(name: &'static str, make: fn() -> Box<dyn Plugin>) -> Row {
    Row { name, default_on: true, make: Some(make) }
}

const fn off(name: &'static str, make: fn() -> Box<dyn Plugin>) -> Row {
    Row { name, default_on: false, make: Some(make) }
}

const fn asks_others(name: &'static str) -> Row {
    Row { name, default_on: true, make: None }
}

/// In upstream's order (`AllOrderedPlugins`).
const PLUGINS: [Row; 30] = [
    on("NamespaceLifecycle", || Box::new(NamespaceLifecycle)),
    off("LimitPodHardAntiAffinityTopology", || Box::new(LimitPodHardAntiAffinityTopology)),
    on("LimitRanger", || Box::new(LimitRanger)),
    on("ServiceAccount", || Box::new(ServiceAccount)),
    on("NodeRestriction", || Box::new(NodeRestriction)),
    on("TaintNodesByCondition", || Box::new(TaintNodesByCondition)),
    off("AlwaysPullImages", || Box::new(AlwaysPullImages)),
    on("PodSecurity", || Box::new(PodSecurity::default())),
    on("Priority", || Box::new(Priority)),
    on("DefaultTolerationSeconds", || Box::new(DefaultTolerationSeconds)),
    off("ExtendedResourceToleration", || Box::new(ExtendedResourceToleration)),
    on("DefaultStorageClass", || Box::new(DefaultStorageClass)),
    on("StorageObjectInUseProtection", || Box::new(StorageObjectInUseProtection)),
    off("OwnerReferencesPermissionEnforcement", || Box::new(OwnerReferencesPermissionEnforcement)),
    on("PersistentVolumeClaimResize", || Box::new(PersistentVolumeClaimResize)),
    on("RuntimeClass", || Box::new(RuntimeClass)),
    on("CertificateApproval", || Box::new(CertificateApproval)),
    on("CertificateSigning", || Box::new(CertificateSigning)),
    on("ClusterTrustBundleAttest", || Box::new(ClusterTrustBundleAttest)),
    on("CertificateSubjectRestriction", || Box::new(CertificateSubjectRestriction)),
    on("DefaultIngressClass", || Box::new(DefaultIngressClass)),
    off("DenyServiceExternalIPs", || Box::new(DenyServiceExternalIPs)),
    on("PodTopologyLabels", || Box::new(PodTopologyLabels)),
    on("PodResizeValidator", || Box::new(PodResizeValidator)),
    asks_others(MUTATING_POLICY),
    asks_others(MUTATING_WEBHOOK),
    asks_others(VALIDATING_POLICY),
    asks_others(VALIDATING_WEBHOOK),
    asks_others(resourcequota::NAME),
    off("AlwaysDeny", || Box::new(AlwaysDeny)),
];

/// `--enable-admission-plugins` and `--disable-admission-plugins`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub enable: Vec<String>,
    pub disable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectionError(String);

impl std::fmt::Display for SelectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelectionError {}

impl Selection {
    /// Follows `AdmissionOptions.Validate`.
    pub fn validate(&self) -> Result<(), SelectionError> {
        for (flag, names) in [("enable", &self.enable), ("disable", &self.disable)] {
            let unknown: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| PLUGINS.iter().all(|row| row.name != *name))
                .collect();
            if !unknown.is_empty() {
                let names = unknown.join(", ");
                return Err(SelectionError(format!(
                    "{flag}-admission-plugins plugin(s) {names:?} is unknown"
                )));
            }
        }
        match self.enable.iter().find(|name| self.disable.contains(name)) {
            Some(both) => Err(SelectionError(format!(
                "plugin {both:?} is in both enable-admission-plugins and disable-admission-plugins"
            ))),
            None => Ok(()),
        }
    }

    fn runs(&self, row: &Row) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == row.name);
        named(&self.enable) || (row.default_on && !named(&self.disable))
    }
}

/// Refuses everything; upstream keeps it for tests of clients.
struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        self.validate(request, object, world)
    }

    fn validate(&self, request: &Request<'_>, object: &Value, _world: &dyn World) -> Result<(), Status> {
        Err(request.forbidden(object, "admission control is denying all modifications"))
    }
}

/// Plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    /// All that run, those that ask others included.
    names: Vec<&'static str>,
}

impl Chain {
    /// What a cluster runs with unless its operator chooses.
    pub fn standard() -> Self {
        Chain::selected(&Selection::default())
    }

    /// What the operator chose, in upstream's order.
    pub fn selected(selection: &Selection) -> Self {
        let rows = || PLUGINS.iter().filter(|row| selection.runs(row));
        Chain {
            plugins: rows().filter_map(|row| row.make).map(|make| make()).collect(),
            names: rows().map(|row| row.name).collect(),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    pub fn runs(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// The mutating half, after defaulting and before validation.
    pub fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(request, object, world))
    }

    /// The validating half, right before the commit.
    pub fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(request, object, world))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(enable: &[&str], disable: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection { enable: owned(enable), disable: owned(disable) }
    }

    #[test]
    fn rows_and_plugins_have_the_same_names() {
        for row in PLUGINS {
            if let Some(make) = row.make {
                assert_eq!(make().name(), row.name);
            }
        }
    }

    #[test]
    fn the_operator_chooses_by_upstreams_names() {
        let chain =
            Chain::selected(&selection(&["AlwaysDeny"], &["PodSecurity", "ValidatingAdmissionWebhook"]));
        assert!(chain.runs("AlwaysDeny") && chain.runs("ResourceQuota"));
        assert!(!chain.runs("PodSecurity") && !chain.runs(VALIDATING_WEBHOOK));
        assert!(!Chain::standard().runs("OwnerReferencesPermissionEnforcement"));
        assert_eq!(selection(&["Priority"], &[]).validate(), Ok(()));
        assert!(selection(&["Nothing"], &[]).validate().is_err());
        assert!(selection(&["Priority"], &["Priority"]).validate().is_err());
    }
}
