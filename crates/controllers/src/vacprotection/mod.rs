//! Keeps a VolumeAttributesClass that is being deleted until no claim and no volume names it (follows upstream's
//! `vacprotection`).

use std::collections::BTreeSet;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use api::view::PartialObject;
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::protection;

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct VacProtection {
    classes: Informer<PartialObject>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(VacProtection {
        classes: informers.get_selected(VOLUME_ATTRIBUTES_CLASSES, ""),
        claims: informers.get(),
        volumes: informers.get(),
    })
}

#[async_trait]
impl Controller for VacProtection {
    fn watch(&self, watches: &mut Watches) {
        watches.on(VOLUME_ATTRIBUTES_CLASSES, &self.classes, |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            _ if protection::is_due(&delta.object().metadata, FINALIZER) => itself(delta),
            _ => Vec::new(),
        });
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, |delta| classes_let_go(delta, of_claim));
        watches.on(PERSISTENT_VOLUMES, &self.volumes, |delta| classes_let_go(delta, of_volume));
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let cached = self.classes.get("", &key.name);
        if !cached.is_some_and(|class| protection::is_due(&class.metadata, FINALIZER)) {
            return Ok(Plan::default());
        }
        let Some(class) = protection::read(client, VOLUME_ATTRIBUTES_CLASSES, key).await? else {
            return Ok(Plan::default());
        };
        let name = key.name.as_str();
        let is_used = self.claims.list().iter().any(|claim| of_claim(claim).contains(name))
            || self.volumes.list().iter().any(|volume| of_volume(volume).contains(name));
        Ok(protection::reconcile(VOLUME_ATTRIBUTES_CLASSES, &class, FINALIZER, is_used))
    }
}

/// The classes that a claim asks for, has, or is being moved to.
fn of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.volume_attributes_class_name.as_deref();
    let current = claim.status.current_volume_attributes_class_name.as_deref();
    let target = claim.status.modify_volume_status.as_ref();
    let target = target.map(|status| status.target_volume_attributes_class_name.as_str());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> BTreeSet<&str> {
    let name = volume.spec.volume_attributes_class_name.as_deref();
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

/// The classes that an object named before its change and no longer does.
fn classes_let_go<T>(delta: &Delta<T>, named: fn(&T) -> BTreeSet<&str>) -> Vec<Key> {
    let let_go = match delta {
        Delta::Added(_) => BTreeSet::new(),
        Delta::Updated { old, new } => &named(old) - &named(new),
        Delta::Deleted(object) => named(object),
    };
    let_go.into_iter().map(|name| Key::new("", name)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;

    use super::*;

    fn claim(wanted: &str, current: &str, target: &str) -> Arc<PersistentVolumeClaim> {
        let claim = json!({"spec": {"volumeAttributesClassName": wanted}, "status": {
            "currentVolumeAttributesClassName": current,
            "modifyVolumeStatus": {"targetVolumeAttributesClassName": target, "status": "InProgress"}}});
        Arc::new(apimachinery::from_value(claim).expect("a claim"))
    }

    #[test]
    fn a_claim_holds_the_class_it_wants_has_and_moves_to() {
        assert_eq!(of_claim(&claim("a", "b", "c")), BTreeSet::from(["a", "b", "c"]));
        assert_eq!(of_claim(&claim("a", "", "a")), BTreeSet::from(["a"]));
        assert!(of_claim(&PersistentVolumeClaim::default()).is_empty());
    }

    #[test]
    fn only_classes_no_longer_named_are_looked_at_again() {
        let names = |delta: &Delta<PersistentVolumeClaim>| -> Vec<String> {
            classes_let_go(delta, of_claim).into_iter().map(|key| key.name).collect()
        };
        let (old, new) = (claim("a", "b", ""), claim("c", "a", "c"));
        assert!(names(&Delta::Added(old.clone())).is_empty());
        assert_eq!(names(&Delta::Updated { old: old.clone(), new }), ["b"]);
        assert_eq!(names(&Delta::Deleted(old)), ["a", "b"]);
    }
}
