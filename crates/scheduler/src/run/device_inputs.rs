//! What the scheduler hears of devices and claims to them, and how a placed pod waits for devices that take their time.

use std::pin::pin;
use std::time::Duration;

use api::view::dynamicresource::{DeviceClass, ResourceClaim, ResourceSlice};
use apimachinery::meta::find_condition;
use client::{Informer, Informers};
use futures_util::stream::{BoxStream, SelectAll, select_all};

use super::storage::{Waiting, changes};
use crate::devices::{Change, PodDevices};

/// How long a placed pod waits for its devices (upstream: `BindingTimeout` of `DynamicResourcesArgs`).
const READY_TIMEOUT: Duration = Duration::from_secs(600);

pub struct DeviceInputs {
    pub claims: Informer<ResourceClaim>,
    pub classes: Informer<DeviceClass>,
    pub slices: Informer<ResourceSlice>,
}

impl DeviceInputs {
    pub fn new(informers: &Informers) -> Self {
        DeviceInputs { claims: informers.get(), classes: informers.get(), slices: informers.get() }
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.classes.synced(), self.slices.synced());
    }

    /// All of them now, then every change.
    pub fn changes(&self) -> SelectAll<BoxStream<'static, Change>> {
        select_all([
            changes(&self.claims, Change::Claim),
            changes(&self.classes, Change::Class),
            changes(&self.slices, Change::Slice),
        ])
    }
}

impl Waiting {
    /// Until the drivers have told that all devices of these claims, which are reserved by now, can be used.
    pub async fn ready(&self, decided: &PodDevices) -> Result<(), String> {
        let all_ready = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                changed.as_mut().enable();
                if self.are_ready(decided)? {
                    return Ok(());
                }
                changed.await;
            }
        };
        let outcome = tokio::time::timeout(READY_TIMEOUT, all_ready).await;
        outcome.unwrap_or_else(|_| Err("device binding timeout".to_owned()))
    }

    fn are_ready(&self, decided: &PodDevices) -> Result<bool, String> {
        let mut all_ready = true;
        for reservation in &decided.reservations {
            let meta = &reservation.claim.metadata;
            let allocation = reservation.allocation.as_deref();
            let awaited = allocation.or(reservation.claim.status.allocation.as_ref());
            let waits =
                awaited.is_some_and(|a| a.devices.results.iter().any(|r| !r.binding_conditions.is_empty()));
            if waits {
                let claim = self.resource_claims.get(&meta.namespace, &meta.name);
                all_ready &= claim.map_or(Ok(false), |claim| is_ready(&claim))?;
            }
        }
        Ok(all_ready)
    }
}

/// Upstream: `isClaimReadyForBinding`.
fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = &claim.status.allocation else { return Ok(false) };
    let mut all_ready = true;
    for result in allocation.devices.results.iter().filter(|result| !result.binding_conditions.is_empty()) {
        let conditions = claim.device_status(result).map(|status| status.conditions.as_slice());
        let found =
            |kind: &String| find_condition(conditions.unwrap_or_default(), kind).filter(|c| c.is_true());
        if let Some(failed) = result.binding_failure_conditions.iter().find_map(found) {
            let (name, reason, message) = (&claim.metadata.name, &failed.reason, &failed.message);
            return Err(format!("device binding failed: claim={name}, reason={reason}, message={message:?}"));
        }
        all_ready &= result.binding_conditions.iter().all(|kind| found(kind).is_some());
    }
    Ok(all_ready)
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    #[test]
    fn devices_are_ready_when_all_their_conditions_hold_and_none_of_failure() {
        let check = |conditions: Value, expect: Result<bool, &str>| {
            let result = json!({"driver": "d", "pool": "p", "device": "x", "bindingConditions": ["Attached"],
                "bindingFailureConditions": ["Broken"]});
            let told = json!([{"driver": "d", "pool": "p", "device": "x", "conditions": conditions}]);
            let status = json!({"allocation": {"devices": {"results": [result]}}, "devices": told});
            let claim =
                apimachinery::from_value(json!({"metadata": {"name": "c"}, "status": status})).unwrap();
            assert_eq!(is_ready(&claim), expect.map_err(str::to_owned), "{conditions}");
        };
        check(json!([]), Ok(false));
        check(json!([{"type": "Attached", "status": "True"}]), Ok(true));
        check(
            json!([{"type": "Broken", "status": "True", "reason": "R", "message": "m"}]),
            Err("device binding failed: claim=c, reason=R, message=\"m\""),
        );
    }
}
