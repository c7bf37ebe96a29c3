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

use Halves::{Admit, Both, Validate};

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

/// Which halves of a plugin do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halves {
    Admit,
    Validate,
    Both,
}

impl Halves {
    fn admits(self) -> bool {
        self != Halves::Validate
    }

    fn validates(self) -> bool {
        self != Halves::Admit
    }
}

/// A row of the table of plugins.
struct Row {
    name: &'static str,
    halves: Halves,
    /// Whether it runs unless the operator says otherwise.
    default_on: bool,
    /// None for those that ask others.
    make: Option<fn() -> Box<dyn Plugin>>,
}

const fn on(name: &'static str, halves: Halves, make: fn() -> Box<dyn Plugin>) -> Row {
    Row { name, halves, default_on: true, make: Some(make) }
}

const fn off(name: &'static str, halves: Halves, make: fn() -> Box<dyn Plugin>) -> Row {
    Row { name, halves, default_on: false, make: Some(make) }
}

const fn asks_others(name: &'static str, halves: Halves) -> Row {
    Row { name, halves, default_on: true, make: None }
}

/// In upstream's order (`AllOrderedPlugins`).
const PLUGINS: [Row; 30] = [
    on("NamespaceLifecycle", Admit, || Box::new(NamespaceLifecycle)),
    off("LimitPodHardAntiAffinityTopology", Validate, || Box::new(LimitPodHardAntiAffinityTopology)),
    on("LimitRanger", Both, || Box::new(LimitRanger)),
    on("ServiceAccount", Both, || Box::new(ServiceAccount)),
    on("NodeRestriction", Admit, || Box::new(NodeRestriction)),
    on("TaintNodesByCondition", Admit, || Box::new(TaintNodesByCondition)),
    off("AlwaysPullImages", Both, || Box::new(AlwaysPullImages)),
    on("PodSecurity", Validate, || Box::new(PodSecurity::default())),
    on("Priority", Both, || Box::new(Priority)),
    on("DefaultTolerationSeconds", Admit, || Box::new(DefaultTolerationSeconds)),
    off("ExtendedResourceToleration", Admit, || Box::new(ExtendedResourceToleration)),
    on("DefaultStorageClass", Admit, || Box::new(DefaultStorageClass)),
    on("StorageObjectInUseProtection", Admit, || Box::new(StorageObjectInUseProtection)),
    off("OwnerReferencesPermissionEnforcement", Validate, || Box::new(OwnerReferencesPermissionEnforcement)),
    on("PersistentVolumeClaimResize", Validate, || Box::new(PersistentVolumeClaimResize)),
    on("RuntimeClass", Both, || Box::new(RuntimeClass)),
    on("CertificateApproval", Validate, || Box::new(CertificateApproval)),
    on("CertificateSigning", Validate, || Box::new(CertificateSigning)),
    on("ClusterTrustBundleAttest", Validate, || Box::new(ClusterTrustBundleAttest)),
    on("CertificateSubjectRestriction", Validate, || Box::new(CertificateSubjectRestriction)),
    on("DefaultIngressClass", Admit, || Box::new(DefaultIngressClass)),
    off("DenyServiceExternalIPs", Validate, || Box::new(DenyServiceExternalIPs)),
    on("PodTopologyLabels", Admit, || Box::new(PodTopologyLabels)),
    on("PodResizeValidator", Validate, || Box::new(PodResizeValidator)),
    asks_others(MUTATING_POLICY, Admit),
    asks_others(MUTATING_WEBHOOK, Admit),
    asks_others(VALIDATING_POLICY, Validate),
    asks_others(VALIDATING_WEBHOOK, Validate),
    asks_others(resourcequota::NAME, Validate),
    off("AlwaysDeny", Both, || Box::new(AlwaysDeny)),
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

/// A plugin with its place among the names.
struct Placed {
    place: usize,
    halves: Halves,
    plugin: Box<dyn Plugin>,
}

/// Plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Placed>,
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
        let placed = |(place, row): (usize, &Row)| {
            let plugin = (row.make?)();
            Some(Placed { place, halves: row.halves, plugin })
        };
        Chain {
            plugins: rows().enumerate().filter_map(placed).collect(),
            names: rows().map(|row| row.name).collect(),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    pub fn runs(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// The mutating half, after defaulting and before validation. `asked` is told of each plugin that has such a half,
    /// by its place among [`Chain::names`], and whether it let the request through.
    pub fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        world: &dyn World,
        asked: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|Placed { place, halves, plugin }| {
            let outcome = plugin.admit(request, object, world);
            if halves.admits() {
                asked(*place, outcome.is_ok());
            }
            outcome
        })
    }

    /// The validating half, right before the commit, told of in the same way.
    pub fn validate(
        &self,
        request: &Request<'_>,
        object: &Value,
        world: &dyn World,
        asked: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|Placed { place, halves, plugin }| {
            let outcome = plugin.validate(request, object, world);
            if halves.validates() {
                asked(*place, outcome.is_ok());
            }
            outcome
        })
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
