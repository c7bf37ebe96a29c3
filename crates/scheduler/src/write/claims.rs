//! Claims on their way to a pod: devices entered, the pod entered as their user, and both taken back (follows upstream's
//! `bindClaim` and Unreserve).

use std::sync::Arc;

use api::resource::RESOURCE_CLAIMS;
use api::view::core::PodExtendedResourceClaimStatus;
use api::view::dynamicresource::{
    AllocationResult, DeviceRequest, FINALIZER, ResourceClaim, ResourceClaimConsumerReference,
};
use apimachinery::meta::ObjectMeta;
use apimachinery::{Value, json};
use client::{DeleteOptions, PatchType};
use jiff::Timestamp;

use super::Writer;
use crate::devices::{PodDevices, Reservation};
use crate::extendedresources::is_unmade;
use crate::podinfo::PodInfo;

/// How often a claim that others change meanwhile is tried (upstream: `retry.DefaultRetry`).
const ATTEMPTS_MAX: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("claim {claim} got {what} in the meantime")]
    Changed { claim: String, what: &'static str },
    #[error("{what} claim {claim}: {source}")]
    Write { what: &'static str, claim: String, source: client::Error },
}

impl Writer {
    /// Makes the claims among these that are not made yet, and returns all as they are then.
    pub async fn make_claims(&self, decided: &PodDevices) -> Result<PodDevices, Error> {
        let mut made = decided.clone();
        for reservation in made.reservations.iter_mut().filter(|of| is_unmade(&of.claim)) {
            let claim = &reservation.claim;
            let written =
                self.client.create(RESOURCE_CLAIMS, &claim.metadata.namespace, &to_make(claim)).await;
            let written = written.map_err(failed("create", claim))?;
            let malformed = |error: serde_json::Error| client::Error::Malformed(error.to_string());
            let written =
                apimachinery::from_value(written).map_err(malformed).map_err(failed("create", claim))?;
            reservation.claim = Arc::new(written);
        }
        Ok(made)
    }

    /// Enters devices and user in all of these claims, and in the pod which containers get which devices.
    pub async fn reserve(&self, pod: &PodInfo, decided: &PodDevices, now: Timestamp) -> Result<(), Error> {
        for reservation in &decided.reservations {
            self.reserve_one(pod, reservation, now).await?;
        }
        let Some(claim) = decided.made_for(pod) else { return Ok(()) };
        let status = PodExtendedResourceClaimStatus {
            request_mappings: decided.mappings.clone(),
            resource_claim_name: claim.metadata.name.clone(),
        };
        let written = self.patch_status(&pod.pod, json!({"extendedResourceClaimStatus": status})).await;
        written.map_err(failed("update pod's ExtendedResourceClaimStatus for", claim))
    }

    async fn reserve_one(
        &self,
        pod: &PodInfo,
        reservation: &Reservation,
        now: Timestamp,
    ) -> Result<(), Error> {
        let meta = &reservation.claim.metadata;
        let mut claim = ResourceClaim::clone(&reservation.claim);
        let mut attempt = 1;
        loop {
            match self.try_reserve(pod, claim, reservation.allocation.as_deref(), now).await {
                Err(Error::Write { source, .. }) if source.is_conflict() && attempt < ATTEMPTS_MAX => {
                    attempt += 1
                }
                outcome => return outcome,
            }
            let fresh = self.client.get(RESOURCE_CLAIMS, &meta.namespace, &meta.name).await;
            claim = fresh.map_err(failed("get updated", &reservation.claim))?;
        }
    }

    async fn try_reserve(
        &self,
        pod: &PodInfo,
        mut claim: ResourceClaim,
        allocation: Option<&AllocationResult>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let changed = |what| Error::Changed { claim: claim.metadata.namespaced_name().to_string(), what };
        if claim.metadata.is_being_deleted() {
            return Err(changed("deleted"));
        }
        match (allocation, &claim.status.allocation) {
            (Some(_), Some(_)) => return Err(changed("allocated elsewhere")),
            (None, None) => return Err(changed("deallocated elsewhere")),
            _ => {}
        }
        if claim.is_reserved_for(pod.uid()) {
            return Ok(());
        }
        if allocation.is_some() && !claim.metadata.finalizers.iter().any(|held| held == FINALIZER) {
            claim.metadata.finalizers.push(FINALIZER.to_owned());
            let patch = json!({"metadata": {"finalizers": claim.metadata.finalizers}});
            let written = self.patch_claim(&claim, None, patch).await;
            claim = written.map_err(failed("add finalizer to", &claim))?;
        }
        let mut users = claim.status.reserved_for.clone();
        users.push(ResourceClaimConsumerReference::pod(&pod.pod.metadata));
        let mut status = json!({"reservedFor": users});
        if let Some(allocation) = allocation {
            status["allocation"] =
                json!(AllocationResult { allocation_timestamp: Some(now), ..allocation.clone() });
        }
        let what =
            if allocation.is_some() { "add allocation and reservation to" } else { "add reservation to" };
        let written = self.patch_claim(&claim, Some("status"), json!({"status": status})).await;
        written.map(drop).map_err(failed(what, &claim))
    }

    /// Takes the pod out of the claims again; `gives_back` takes devices that only it has back with it.
    pub async fn unreserve(&self, pod: &PodInfo, decided: &PodDevices, gives_back: bool) {
        for reservation in &decided.reservations {
            let meta = &reservation.claim.metadata;
            if decided.made_for(pod).is_some_and(|made| Arc::ptr_eq(made, &reservation.claim)) {
                self.delete_claim(&reservation.claim).await;
                continue;
            }
            let found = self.client.get::<ResourceClaim>(RESOURCE_CLAIMS, &meta.namespace, &meta.name).await;
            let outcome = match found {
                Ok(claim) if claim.is_reserved_for(pod.uid()) => self.leave(pod, &claim, gives_back).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                // The controller takes pods that are gone out; one that is scheduled again finds itself in.
                tracing::warn!(claim = %meta.namespaced_name(), %error, "pod stays a user of the claim");
            }
        }
    }

    async fn leave(
        &self,
        pod: &PodInfo,
        claim: &ResourceClaim,
        gives_back: bool,
    ) -> client::error::Result<()> {
        let others: Vec<_> = claim.status.reserved_for.iter().filter(|user| user.uid != pod.uid()).collect();
        let status =
            if others.is_empty() && gives_back { no_devices() } else { json!({"reservedFor": others}) };
        self.patch_claim(claim, Some("status"), json!({"status": status})).await.map(drop)
    }

    /// Takes the devices of a claim back that nobody uses, so that it can get others.
    pub async fn deallocate(&self, claim: &ResourceClaim) {
        if let Err(error) = self.patch_claim(claim, Some("status"), json!({"status": no_devices()})).await {
            tracing::warn!(claim = %claim.metadata.namespaced_name(), %error, "claim not deallocated");
        }
    }

    /// Deletes a claim that was made for a placement that came to nothing.
    pub async fn delete_claim(&self, claim: &ResourceClaim) {
        if let Err(error) = self.try_delete(claim).await
            && !error.is_not_found()
        {
            tracing::warn!(claim = %claim.metadata.namespaced_name(), %error, "claim not deleted");
        }
    }

    async fn try_delete(&self, claim: &ResourceClaim) -> client::error::Result<()> {
        let ObjectMeta { namespace, name, uid, .. } = &claim.metadata;
        let found = self.client.get::<ResourceClaim>(RESOURCE_CLAIMS, namespace, name).await?;
        if found.metadata.finalizers.iter().any(|held| held == FINALIZER) {
            let others: Vec<_> = found.metadata.finalizers.iter().filter(|held| *held != FINALIZER).collect();
            self.patch_claim(&found, None, json!({"metadata": {"finalizers": others}})).await?;
        }
        let options = DeleteOptions { uid: Some(uid.clone()), ..DeleteOptions::default() };
        self.client.delete(RESOURCE_CLAIMS, namespace, name, &options).await.map(drop)
    }

    async fn patch_claim(
        &self,
        claim: &ResourceClaim,
        subresource: Option<&'static str>,
        mut patch: Value,
    ) -> client::error::Result<ResourceClaim> {
        let meta = &claim.metadata;
        patch["metadata"]["uid"] = meta.uid.as_str().into();
        patch["metadata"]["resourceVersion"] = meta.resource_version.as_str().into();
        let (namespace, name) = (&meta.namespace, &meta.name);
        let written = self
            .client
            .patch(RESOURCE_CLAIMS, namespace, name, subresource, PatchType::Merge, &patch)
            .await?;
        // Only versions matter to who goes on; a view that cannot be read again has the old ones and is refused.
        Ok(apimachinery::from_value(written).unwrap_or_else(|_| claim.clone()))
    }
}

/// A claim for the API server to name.
fn to_make(claim: &ResourceClaim) -> Value {
    let ObjectMeta { generate_name, annotations, owner_references, .. } = &claim.metadata;
    let exact = |request: &DeviceRequest| {
        let exactly = request.exactly.as_ref().map(|exactly| {
            json!({"deviceClassName": exactly.device_class_name, "allocationMode": exactly.allocation_mode,
                "count": exactly.count})
        });
        json!({"name": request.name, "exactly": exactly})
    };
    let requests: Vec<Value> = claim.spec.devices.requests.iter().map(exact).collect();
    json!({
        "kind": RESOURCE_CLAIMS.kind, "apiVersion": RESOURCE_CLAIMS.api_version(),
        "metadata": {"generateName": generate_name, "annotations": annotations, "ownerReferences": owner_references},
        "spec": {"devices": {"requests": requests}},
    })
}

fn no_devices() -> Value {
    json!({"allocation": null, "reservedFor": null, "devices": null})
}

fn failed(what: &'static str, claim: &ResourceClaim) -> impl FnOnce(client::Error) -> Error + use<> {
    let claim = claim.metadata.namespaced_name().to_string();
    move |source| Error::Write { what, claim, source }
}
