//! What one node's volumes need next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::resource::{NODES, PODS, VOLUME_ATTACHMENTS};
use api::storage::csi::{attachment_name, unique_name};
use api::view::core::{AttachedVolume, Node, PersistentVolume, Pod};
use api::view::storage::VolumeAttachment;
use apimachinery::json;
use apimachinery::meta::{Condition, find_condition};
use client::PatchType;
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Event, Plan, reference};
use crate::taint::OUT_OF_SERVICE;

/// How long a kubelet that is not heard of may keep a volume that no pod wants (upstream: `maxWaitForUnmountDuration`).
const UNMOUNT_WAIT_MAX: SignedDuration = SignedDuration::from_mins(6);

const FAILED: &str = "FailedAttachVolume";
const SUCCEEDED: &str = "SuccessfulAttachVolume";

/// A volume that a pod of the node waits for.
pub struct Attachable {
    pub volume: Arc<PersistentVolume>,
    pub pod: Arc<Pod>,
}

pub struct World<'a> {
    pub node_name: &'a str,
    /// `None` when it is gone.
    pub node: Option<Arc<Node>>,
    pub wanted: &'a [Attachable],
    /// Of all nodes.
    pub attachments: &'a [Arc<VolumeAttachment>],
    /// Since when no pod of the node wants an attachment, by its name.
    pub unwanted_since: &'a BTreeMap<String, Timestamp>,
    pub now: Timestamp,
}

impl Attachable {
    fn driver_and_handle(&self) -> (&str, &str) {
        let csi = self.volume.spec.csi.as_ref();
        csi.map_or(("", ""), |csi| (csi.driver.as_str(), csi.volume_handle.as_str()))
    }

    fn attachment(&self, node: &str) -> String {
        let (driver, handle) = self.driver_and_handle();
        attachment_name(handle, driver, node)
    }

    fn unique_name(&self) -> String {
        let (driver, handle) = self.driver_and_handle();
        unique_name(driver, handle)
    }

    fn tells(
        &self,
        kind: fn(api::view::core::ObjectReference, &'static str, String) -> Event,
        reason: &'static str,
        message: String,
    ) -> Event {
        kind(reference(PODS, &self.pod.metadata), reason, message)
    }
}

pub fn reconcile(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    for attachable in world.wanted {
        attach(attachable, world, &mut plan);
    }
    detach(world, &mut plan);
    report_attached(world, &mut plan);
    plan
}

fn attach(attachable: &Attachable, world: &World<'_>, plan: &mut Plan) {
    let name = attachable.attachment(world.node_name);
    let volume = &attachable.volume.metadata.name;
    let is_planned = plan.steps.iter().any(
        |step| matches!(&step.action, Action::Create { object, .. } if object["metadata"]["name"] == name.as_str()),
    );
    match world.attachments.iter().find(|attachment| attachment.metadata.name == name) {
        Some(attachment) => {
            if let Some(error) = &attachment.status.attach_error
                && !attachment.status.attached
            {
                let message = format!("AttachVolume.Attach failed for volume {volume:?} : {}", error.message);
                plan.events.push(attachable.tells(Event::warning, FAILED, message));
            }
        }
        None if is_elsewhere(attachable, world) => {
            let message = format!(
                "Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and \
                 can't be attached to another"
            );
            plan.events.push(attachable.tells(Event::warning, FAILED, message));
        }
        None if is_planned || world.node.is_none() => {}
        None => plan.act(Action::create(
            VOLUME_ATTACHMENTS,
            "",
            json!({
                "apiVersion": VOLUME_ATTACHMENTS.api_version(), "kind": VOLUME_ATTACHMENTS.kind,
                "metadata": {"name": name},
                "spec": {
                    "attacher": attachable.driver_and_handle().0, "nodeName": world.node_name,
                    "source": {"persistentVolumeName": volume},
                },
            }),
        )),
    }
}

/// Whether another node has a volume that only one may have.
fn is_elsewhere(attachable: &Attachable, world: &World<'_>) -> bool {
    let name = &attachable.volume.metadata.name;
    let is_shared = |mode: &String| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
    !attachable.volume.spec.access_modes.iter().any(is_shared)
        && world.attachments.iter().any(|attachment| {
            attachment.spec.node_name != world.node_name
                && attachment.spec.source.persistent_volume_name.as_ref() == Some(name)
        })
}

/// The node's attachments that no pod of it wants.
pub fn unwanted<'a>(
    node_name: &str,
    wanted: &[Attachable],
    attachments: &'a [Arc<VolumeAttachment>],
) -> Vec<&'a VolumeAttachment> {
    let wanted: BTreeSet<String> = wanted.iter().map(|a| a.attachment(node_name)).collect();
    let is_unwanted = |attachment: &&VolumeAttachment| {
        let name = &attachment.metadata.name;
        attachment.spec.node_name == node_name && is_made_here(name) && !wanted.contains(name)
    };
    attachments.iter().map(AsRef::as_ref).filter(is_unwanted).collect()
}

/// What neither a pod of the node wants nor its kubelet still uses, or says so no more.
fn detach(world: &World<'_>, plan: &mut Plan) {
    let in_use = world.node.as_ref().map(|node| node.status.volumes_in_use.as_slice()).unwrap_or_default();
    let attachments = unwanted(world.node_name, world.wanted, world.attachments);
    for attachment in attachments.into_iter().filter(|a| !a.metadata.is_being_deleted()) {
        let name = &attachment.metadata.name;
        // The name of an attachment holds the volume's: one that is used gives the same.
        let is_in_use =
            in_use.iter().filter_map(|unique| unique.strip_prefix("kubernetes.io/csi/")).any(|used| {
                let parts = used.split_once('^');
                parts
                    .is_some_and(|(driver, handle)| attachment_name(handle, driver, world.node_name) == *name)
            });
        match detached_by_force_at(world, name).filter(|_| is_in_use) {
            Some(at) if at > world.now => plan.requeue(at),
            None if is_in_use => {}
            _ => plan.act(Action::delete(VOLUME_ATTACHMENTS, &attachment.metadata)),
        }
    }
}

/// When a volume is taken from a node whose kubelet does not let go of it; `None` while the node is well.
fn detached_by_force_at(world: &World<'_>, attachment: &str) -> Option<Timestamp> {
    let node = world.node.as_ref()?;
    if node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
        return Some(world.now);
    }
    let since = world.unwanted_since.get(attachment)?;
    (!is_ready(node)).then(|| *since + UNMOUNT_WAIT_MAX)
}

pub fn is_ready(node: &Node) -> bool {
    find_condition(&node.status.conditions, "Ready").is_some_and(Condition::is_true)
}

/// Others may make attachments of their own, under names of their own.
fn is_made_here(name: &str) -> bool {
    const DIGEST_LENGTH: usize = 64;
    name.strip_prefix("csi-").is_some_and(|digest| {
        digest.len() == DIGEST_LENGTH && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Tells the kubelet, and people, what is attached now.
fn report_attached(world: &World<'_>, plan: &mut Plan) {
    let Some(node) = &world.node else { return };
    let is_attached = |attachable: &&Attachable| {
        let name = attachable.attachment(world.node_name);
        world
            .attachments
            .iter()
            .any(|attachment| attachment.metadata.name == name && attachment.status.attached)
    };
    let known: BTreeSet<&str> =
        node.status.volumes_attached.iter().map(|volume| volume.name.as_str()).collect();
    let mut attached = BTreeSet::new();
    for attachable in world.wanted.iter().filter(is_attached) {
        let name = attachable.unique_name();
        if !known.contains(name.as_str()) {
            let volume = &attachable.volume.metadata.name;
            let message = format!("AttachVolume.Attach succeeded for volume {volume:?} ");
            plan.events.push(attachable.tells(Event::normal, SUCCEEDED, message));
        }
        attached.insert(name);
    }
    if attached.iter().map(String::as_str).eq(known) {
        return;
    }
    let listed: Vec<AttachedVolume> =
        attached.into_iter().map(|name| AttachedVolume { name, device_path: String::new() }).collect();
    plan.act(Action::Patch {
        resource: NODES,
        namespace: String::new(),
        name: world.node_name.to_owned(),
        subresource: Some("status"),
        kind: PatchType::Merge,
        patch: json!({"metadata": {"uid": node.metadata.uid}, "status": {"volumesAttached": listed}}),
    });
}
