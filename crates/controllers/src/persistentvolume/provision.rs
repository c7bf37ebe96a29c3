//! Has a volume made for a claim: by the built-in provisioner, or by one outside (follows `provisionClaim`).

use api::resource::PERSISTENT_VOLUMES;
use api::storage::localpath::PROVISIONER;
use api::view::core::persistentvolume::{
    BETA_STORAGE_PROVISIONER, PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER,
};
use api::view::storage::StorageClass;

use super::bind::{annotate, remove, rewritten};
use super::claim::regarding;
use super::volume::IN_TREE_PREFIX;
use super::{Claim, World, local_path};
use crate::plan::{Action, ERROR, Event, NAME, Plan, Step};

const PROVISIONING_FAILED: &str = "ProvisioningFailed";

pub fn provision(claim: &Claim, class: Option<&StorageClass>, world: &World<'_>, plan: &mut Plan) {
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io {:?} not found", claim.view.class());
        return fail(claim, message, plan);
    };
    if class.provisioner == PROVISIONER {
        return provision_local_path(claim, class, world, plan);
    }
    if class.provisioner.starts_with(IN_TREE_PREFIX) {
        return fail(claim, format!("no volume plugin matched name: {}", class.provisioner), plan);
    }
    set_provisioner(claim, &class.provisioner, plan);
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered.",
        class.provisioner
    );
    plan.events.push(Event::normal(regarding(claim), "ExternalProvisioning", message));
}

fn fail(claim: &Claim, message: String, plan: &mut Plan) {
    plan.events.push(Event::warning(regarding(claim), PROVISIONING_FAILED, message));
}

/// Says on the claim who is to make its volume; nothing when that is said.
fn set_provisioner(claim: &Claim, provisioner: &str, plan: &mut Plan) -> bool {
    let says = |key: &str| claim.view.metadata.annotations.get(key).is_some_and(|value| value == provisioner);
    if says(STORAGE_PROVISIONER) && says(BETA_STORAGE_PROVISIONER) {
        return false;
    }
    plan.act(rewritten(claim, |object| {
        annotate(object, BETA_STORAGE_PROVISIONER, provisioner);
        annotate(object, STORAGE_PROVISIONER, provisioner);
    }));
    true
}

fn provision_local_path(claim: &Claim, class: &StorageClass, world: &World<'_>, plan: &mut Plan) {
    let chosen = claim.view.metadata.annotations.get(SELECTED_NODE);
    let node = chosen.and_then(|name| world.nodes.iter().find(|node| node.metadata.name == *name));
    match local_path::volume(claim, class, node.map(AsRef::as_ref)) {
        Ok(mut volume) => {
            // The claim is written first: it tells who works on it.
            if set_provisioner(claim, PROVISIONER, plan) {
                return;
            }
            annotate(&mut volume, PROVISIONED_BY, PROVISIONER);
            plan.steps.push(Step {
                action: Action::create(PERSISTENT_VOLUMES, "", volume),
                done: Some(Event::normal(
                    regarding(claim),
                    "ProvisioningSucceeded",
                    format!("Successfully provisioned volume {NAME} using {PROVISIONER}"),
                )),
                failed: Some(Event::warning(
                    regarding(claim),
                    PROVISIONING_FAILED,
                    format!(
                        "Error creating provisioned PV object for claim {}: {ERROR}.",
                        claim.view.metadata.namespaced_name()
                    ),
                )),
            });
        }
        Err(why) => {
            let class = &class.metadata.name;
            fail(claim, format!("Failed to provision volume with StorageClass {class:?}: {why}"), plan);
            // The scheduler may choose another node (upstream: `rescheduleProvisioning`).
            if chosen.is_some() {
                plan.act(rewritten(claim, |object| {
                    remove(&mut object["metadata"]["annotations"], SELECTED_NODE);
                }));
            }
        }
    }
}
