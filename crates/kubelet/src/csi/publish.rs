//! Brings a volume into a pod: attached, staged, grown if that is due, published, and given to the pod's group.

use std::fs;
use std::path::{Path, PathBuf};

use api::resource::NODES;
use api::storage::csi::unique_name;
use api::view::core::Pod;
use api::view::storage::CsiDriver;
use apimachinery::{Map, Value, json};
use client::{Client, PatchType};
use csi::v1::NodePublishVolumeRequest;
use csi::v1::node_service_capability::rpc::Type as Capability;
use jiff::{SignedDuration, Timestamp};

use super::expand::expand;
use super::place::{self, Place, Record};
use super::registration::Turn;
use super::source::{Lifecycle, Source, Texts};
use super::stage::{Staging, attached, check_lifecycle, secrets, settings};
use super::{Error, not_registered, rpc_error};
use crate::volumes::growth::Growth;
use crate::volumes::persistent::own_by_pod;
use crate::volumes::{Context, is_mounted, service_account_token};

/// How often a driver that wants it publishes again (upstream: the kubelet's `syncFrequency`).
const REPUBLISH: SignedDuration = SignedDuration::from_secs(60);
const IN_USE: &str = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Where the volume is once it is in the pod, and when to call again. `claim` is the one that the volume is bound to.
pub async fn set_up(
    cx: &Context<'_>,
    pod: &Pod,
    source: &Source,
    claim: Option<&Value>,
) -> Result<(PathBuf, Option<Timestamp>), Error> {
    let driver = cx.csi_drivers.get(&source.driver).ok_or_else(|| not_registered(&source.driver))?;
    let settings = settings(cx.client, &source.driver).await?;
    check_lifecycle(source, settings.as_ref())?;
    let turn = driver.turn(&source.handle);
    let mut turn = turn.lock().await;
    let held = driver.plugin.capabilities().await;
    let held = held.map_err(|status| rpc_error("failed to get the driver's capabilities", &status))?;
    let (attachment, publish_context) = attached(cx, pod, source, &driver, settings.as_ref()).await?;
    let record = Record::of(source, cx.node_name, &attachment);
    let group = pod.spec.security_context.as_ref().and_then(|context| context.fs_group);
    let staging = Staging {
        driver: &driver,
        held: &held,
        source,
        record: &record,
        publish_context: &publish_context,
        capability: &source.capability(&held, group),
    };
    let publication = Publication { pod, staging, settings: settings.as_ref(), claim };
    let place = Place::published(cx.root, &pod.metadata.uid, &record);
    let again = publication.republishes();
    if !is_published(source, &place) {
        publication.begin(cx, &place, &mut turn).await?;
    } else {
        publication.grow(cx, &place.path, publication.staging.place(cx), true, &mut turn).await?;
        if again {
            publication.publish(cx, &place, publication.staging.place(cx)).await?;
        }
    }
    Ok((place.path, again.then(|| cx.now + REPUBLISH)))
}

fn is_published(source: &Source, place: &Place) -> bool {
    if source.is_block { place.path.exists() } else { is_mounted(&place.path) }
}

/// One volume of one pod.
struct Publication<'a> {
    pod: &'a Pod,
    staging: Staging<'a>,
    settings: Option<&'a CsiDriver>,
    claim: Option<&'a Value>,
}

impl Publication<'_> {
    fn republishes(&self) -> bool {
        self.settings.is_some_and(|settings| settings.spec.requires_republish == Some(true))
    }

    /// The record is written first: whatever happens then, the volume can be taken away.
    async fn begin(&self, cx: &Context<'_>, place: &Place, turn: &mut Turn) -> Result<(), String> {
        let source = self.staging.source;
        if source.is_for_one_pod()
            && place::is_elsewhere(cx.root, &self.pod.metadata.uid, self.staging.record)
        {
            return Err(IN_USE.to_owned());
        }
        place.write(self.staging.record)?;
        report_in_use(cx.client, cx.root, cx.node_name).await?;
        let staged = self.staging.stage(cx, turn).await?;
        if let Some(staged) = &staged {
            // Some drivers grow only what no pod has yet.
            self.grow(cx, &staged.path, Some(staged.clone()), false, turn).await?;
        }
        self.publish(cx, place, staged.clone()).await?;
        if staged.is_none() {
            self.grow(cx, &place.path, None, false, turn).await?;
        }
        let gives_itself = self.staging.held.contains(&Capability::VolumeMountGroup);
        let policy = self.settings.and_then(|settings| settings.spec.fs_group_policy.as_deref());
        if !gives_itself && source.belongs_to_group(policy) {
            own_by_pod(&place.path, self.pod)
                .map_err(|error| format!("applyFSGroup failed for vol {}: {error}", source.handle))?;
        }
        Ok(())
    }

    async fn grow(
        &self,
        cx: &Context<'_>,
        path: &Path,
        staged: Option<Place>,
        is_online: bool,
        turn: &mut Turn,
    ) -> Result<(), String> {
        let Some(claim) = self.claim else { return Ok(()) };
        let Source { name, capacity, read_only, .. } = self.staging.source;
        let growth = Growth {
            pod: self.pod,
            claim,
            volume: name,
            capacity: *capacity,
            read_only: *read_only,
            is_online,
        };
        let expand = expand(cx, &self.staging, path, staged.as_ref());
        growth.carry_out(cx, &mut turn.known, expand).await
    }

    async fn publish(&self, cx: &Context<'_>, place: &Place, staged: Option<Place>) -> Result<(), String> {
        let source = self.staging.source;
        if let Some(parent) = place.path.parent() {
            fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        let mut secrets = secrets(cx.client, "NodePublishSecretRef", source.publish_secret.as_ref()).await?;
        let mut volume_context = source.attributes.clone();
        if let Some(settings) = self.settings {
            if settings.spec.pod_info_on_mount == Some(true) {
                volume_context.extend(pod_info(self.pod, source.lifecycle));
            }
            let tokens = tokens(cx, self.pod, settings).await?;
            let are_secret = settings.spec.service_account_token_in_secrets == Some(true);
            let told = if are_secret { &mut secrets } else { &mut volume_context };
            told.extend(tokens);
        }
        let request = NodePublishVolumeRequest {
            volume_id: source.handle.clone(),
            publish_context: self.staging.publish_context.clone(),
            staging_target_path: staged.map(|staged| staged.path.display().to_string()).unwrap_or_default(),
            target_path: place.path.display().to_string(),
            volume_capability: Some(self.staging.capability.clone()),
            readonly: source.read_only,
            secrets,
            volume_context,
        };
        let published = self.staging.driver.plugin.publish(request).await;
        published.map_err(|status| rpc_error("SetUpAt failed to publish volume", &status))
    }
}

fn pod_info(pod: &Pod, lifecycle: Lifecycle) -> Texts {
    let metadata = &pod.metadata;
    let told = [
        ("pod.name", metadata.name.as_str()),
        ("pod.namespace", &metadata.namespace),
        ("pod.uid", &metadata.uid),
        ("serviceAccount.name", &pod.spec.service_account_name),
        ("ephemeral", if lifecycle == Lifecycle::Ephemeral { "true" } else { "false" }),
    ];
    told.into_iter().map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())).collect()
}

/// Tokens of the pod's service account for those audiences that the driver asks for.
async fn tokens(cx: &Context<'_>, pod: &Pod, settings: &CsiDriver) -> Result<Texts, String> {
    let mut tokens = Map::new();
    for wanted in &settings.spec.token_requests {
        let status =
            service_account_token(cx.client, pod, &wanted.audience, wanted.expiration_seconds).await?;
        tokens.insert(wanted.audience.clone(), status);
    }
    let is_asked = !tokens.is_empty();
    Ok(is_asked.then(|| (TOKENS.to_owned(), Value::Object(tokens).to_string())).into_iter().collect())
}

/// Tells the attach-detach controller what must stay attached: what pods have, and what is still staged.
pub async fn report_in_use(client: &Client, root: &Path, node_name: &str) -> Result<(), String> {
    let held = place::published(root).into_iter().chain(place::staged(root));
    let attached = held.filter(|record| !record.attachment_id.is_empty());
    let mut names: Vec<String> =
        attached.map(|record| unique_name(&record.driver_name, &record.volume_handle)).collect();
    names.sort();
    names.dedup();
    let patch = json!({"status": {"volumesInUse": names}});
    let written = client.patch(NODES, "", node_name, Some("status"), PatchType::Merge, &patch).await;
    written.map(drop).map_err(|error| format!("volumes in use not reported: {error}"))
}
