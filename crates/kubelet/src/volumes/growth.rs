//! Growing a volume on the node after its controller grew it, and what the claim says meanwhile (follows `NodeExpander`
//! and `resize_util`).

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS};
use api::view::core::{ObjectReference, Pod};
use apimachinery::meta::str_at;
use apimachinery::quantity::Quantity;
use apimachinery::{Value, json};
use client::PatchType;
use client::event::EventType;
use jiff::{SignedDuration, Timestamp};

use super::Context;

const NODE_EXPANSION_NOT_REQUIRED: &str = "volume.kubernetes.io/node-expansion-not-required";
/// Between attempts for a volume in use, however often its claim changes (upstream's back-off ends at 2 min 2 s).
const RETRY: SignedDuration = SignedDuration::from_secs(122);
/// Conditions that speak of growth, and go when it is done.
const CONDITIONS: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// What the claim says of its volume's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The claim waits for it.
    Announced,
    /// The claim was told by another node that shares the volume.
    HereToo,
}

/// Whether the volume, now of this capacity, must be grown here; `known` is how large it was when this node last looked.
fn due(claim: &Value, capacity: Quantity, known: Option<Quantity>) -> Due {
    let status = str_at(claim, &["status", "allocatedResourceStatuses", "storage"]);
    if matches!(status, "NodeResizePending" | "NodeResizeInProgress") {
        return Due::Announced;
    }
    let told: Option<Quantity> = str_at(claim, &["status", "capacity", "storage"]).parse().ok();
    let is_told = status.is_empty() && told.is_some_and(|told| told >= capacity);
    let modes = claim["spec"]["accessModes"].as_array();
    let is_shared = modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteMany"));
    let is_required = claim["metadata"]["annotations"].get(NODE_EXPANSION_NOT_REQUIRED).is_none();
    let has_grown = known.is_some_and(|known| known < capacity);
    if is_told && is_shared && is_required && has_grown { Due::HereToo } else { Due::Nothing }
}

/// The claim's status while its volume grows.
fn in_progress() -> Value {
    json!({"allocatedResourceStatuses": {"storage": "NodeResizeInProgress"}})
}

/// The claim's status once it has grown.
fn finished(claim: &Value, capacity: Quantity) -> Value {
    json!({
        "capacity": {"storage": capacity.to_string()},
        "allocatedResourceStatuses": {"storage": null},
        "conditions": others(claim, &CONDITIONS),
    })
}

/// The claim's status after an error that will not go by itself, unless it says so already; `is_infeasible` when the size
/// cannot be had at all.
fn failed(claim: &Value, why: &str, is_infeasible: bool, now: Timestamp) -> Option<Value> {
    let mut conditions = others(claim, &["NodeResizeError"]);
    let message = format!("failed to expand pvc with {why}");
    let held = claim["status"]["conditions"].as_array().into_iter().flatten();
    if held.into_iter().any(|held| held["type"] == "NodeResizeError" && held["message"] == message) {
        return None;
    }
    conditions.push(json!({
        "type": "NodeResizeError", "status": "True", "message": message,
        "lastTransitionTime": apimachinery::time::format_time(now),
    }));
    let mut status = json!({"conditions": conditions});
    if is_infeasible {
        status["allocatedResourceStatuses"] = json!({"storage": "NodeResizeInfeasible"});
    }
    Some(status)
}

/// The claim's conditions but these.
fn others(claim: &Value, but: &[&str]) -> Vec<Value> {
    let conditions = claim["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|held| !but.contains(&str_at(held, &["type"]))).cloned().collect()
}

/// How a volume could not be grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may go better by itself.
    Transient,
    /// Nothing more is done for this attempt.
    Final,
    /// Not to this size.
    Infeasible,
    /// Not while the volume is in use.
    InUse,
    /// There is nothing to do on the node.
    Unsupported,
}

/// A refusal and what its driver says of it.
pub type Refused = (Refusal, String);

/// What is remembered of a volume between looks.
#[derive(Debug, Default)]
pub struct Known {
    /// How large it was when it was last looked at.
    pub capacity: Option<Quantity>,
    /// The size to which it could not be grown, and when.
    pub refused: Option<(Quantity, Timestamp)>,
}

/// One look at whether a volume must grow.
pub struct Growth<'a> {
    pub pod: &'a Pod,
    pub claim: &'a Value,
    /// The persistent volume.
    pub volume: &'a str,
    pub capacity: Quantity,
    pub read_only: bool,
    /// The pod has it already.
    pub is_online: bool,
}

impl Growth<'_> {
    /// Grows the volume by `expand` if that is due, and tells the claim.
    pub async fn carry_out(
        &self,
        cx: &Context<'_>,
        known: &mut Known,
        expand: impl Future<Output = Result<(), Refused>>,
    ) -> Result<(), String> {
        let capacity = self.capacity;
        let due = due(self.claim, capacity, known.capacity);
        if due == Due::Nothing {
            known.capacity.get_or_insert(capacity);
            return Ok(());
        }
        let is_too_early = known.refused.is_some_and(|(size, at)| size == capacity && cx.now < at + RETRY);
        if self.is_online && is_too_early {
            return Ok(());
        }
        if self.read_only {
            known.refused = Some((capacity, cx.now));
            self.passed_over(cx);
            return Ok(());
        }
        if due == Due::Announced && !self.says_in_progress() {
            self.tell(cx, in_progress()).await?;
        }
        match expand.await {
            Ok(()) => {
                *known = Known { capacity: Some(capacity), refused: None };
                self.succeeded(cx);
                if due == Due::Announced {
                    self.tell(cx, finished(self.claim, capacity)).await
                } else {
                    Ok(())
                }
            }
            Err((Refusal::Unsupported, _)) if due == Due::HereToo => Ok(()),
            Err(refused) => {
                known.refused = Some((capacity, cx.now));
                self.failed(cx, refused).await
            }
        }
    }

    fn says_in_progress(&self) -> bool {
        self.text(&["status", "allocatedResourceStatuses", "storage"]) == "NodeResizeInProgress"
    }

    /// A driver that refuses while the volume is in use does not keep it from its pod.
    async fn failed(&self, cx: &Context<'_>, (refusal, why): Refused) -> Result<(), String> {
        let message =
            format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {why}", self.volume);
        cx.recorder.event(&self.pod_reference(), EventType::Warning, "VolumeResizeFailed", message);
        if refusal != Refusal::Transient
            && let Some(told) = failed(self.claim, &why, refusal == Refusal::Infeasible, cx.now)
        {
            self.tell(cx, told).await?;
        }
        if matches!(refusal, Refusal::InUse | Refusal::Infeasible) { Ok(()) } else { Err(why) }
    }

    /// What is only read stays as small as it is.
    fn passed_over(&self, cx: &Context<'_>) {
        let message = format!(
            "MountVolume.NodeExpandVolume failed for volume {:?} requested read-only file system",
            self.volume
        );
        self.tell_of_both(cx, EventType::Warning, "VolumeResizeFailed", &message);
    }

    fn succeeded(&self, cx: &Context<'_>) {
        let message =
            format!("MountVolume.NodeExpandVolume succeeded for volume {:?} {}", self.volume, cx.node_name);
        self.tell_of_both(cx, EventType::Normal, "FileSystemResizeSuccessful", &message);
    }

    fn tell_of_both(&self, cx: &Context<'_>, kind: EventType, reason: &str, message: &str) {
        for regarding in [self.pod_reference(), self.claim_reference()] {
            cx.recorder.event(&regarding, kind, reason, message.to_owned());
        }
    }

    async fn tell(&self, cx: &Context<'_>, status: Value) -> Result<(), String> {
        let (namespace, name) = (self.text(&["metadata", "namespace"]), self.text(&["metadata", "name"]));
        let patch = json!({"metadata": {"uid": self.text(&["metadata", "uid"])}, "status": status});
        let written = cx.client.patch(
            PERSISTENT_VOLUME_CLAIMS,
            namespace,
            name,
            Some("status"),
            PatchType::Merge,
            &patch,
        );
        written
            .await
            .map(drop)
            .map_err(|error| format!("patchPVCStatus failed to patch PVC {name:?}: {error}"))
    }

    fn text(&self, path: &[&str]) -> &str {
        str_at(self.claim, path)
    }

    fn pod_reference(&self) -> ObjectReference {
        let meta = &self.pod.metadata;
        ObjectReference {
            kind: PODS.kind.to_owned(),
            api_version: PODS.api_version(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..Default::default()
        }
    }

    fn claim_reference(&self) -> ObjectReference {
        let text = |field: &str| self.text(&["metadata", field]).to_owned();
        ObjectReference {
            kind: PERSISTENT_VOLUME_CLAIMS.kind.to_owned(),
            api_version: PERSISTENT_VOLUME_CLAIMS.api_version(),
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Quantity {
        text.parse().expect("a quantity")
    }

    fn claim(mode: &str, capacity: &str, status: &str) -> Value {
        json!({"spec": {"accessModes": [mode]}, "status": {
            "capacity": {"storage": capacity}, "allocatedResourceStatuses": {"storage": status},
            "conditions": [{"type": "FileSystemResizePending"}, {"type": "Mine"}]}})
    }

    #[test]
    fn a_volume_grows_when_its_claim_waits_for_that() {
        let check = |claim: Value, known: Option<&str>, expect: Due| {
            assert_eq!(due(&claim, size("2Gi"), known.map(size)), expect, "{claim} {known:?}");
        };
        check(claim("ReadWriteOnce", "1Gi", "NodeResizePending"), None, Due::Announced);
        check(claim("ReadWriteOnce", "1Gi", "NodeResizeInProgress"), Some("1Gi"), Due::Announced);
        check(claim("ReadWriteOnce", "1Gi", "NodeResizeInfeasible"), None, Due::Nothing);
        check(claim("ReadWriteOnce", "1Gi", "ControllerResizeInProgress"), None, Due::Nothing);
        check(claim("ReadWriteOnce", "1Gi", ""), Some("1Gi"), Due::Nothing);
    }

    #[test]
    fn a_shared_volume_grows_on_each_node_that_knew_it_smaller() {
        let check = |claim: Value, known: Option<&str>, expect: Due| {
            assert_eq!(due(&claim, size("2Gi"), known.map(size)), expect, "{claim} {known:?}");
        };
        check(claim("ReadWriteMany", "2Gi", ""), Some("1Gi"), Due::HereToo);
        check(claim("ReadWriteMany", "2Gi", ""), Some("2Gi"), Due::Nothing);
        check(claim("ReadWriteMany", "2Gi", ""), None, Due::Nothing);
        let mut spared = claim("ReadWriteMany", "2Gi", "");
        spared["metadata"]["annotations"][NODE_EXPANSION_NOT_REQUIRED] = "true".into();
        check(spared, Some("1Gi"), Due::Nothing);
    }

    #[test]
    fn what_spoke_of_growth_goes_when_it_is_done_and_nothing_else() {
        let told = finished(&claim("ReadWriteOnce", "1Gi", "NodeResizeInProgress"), size("2Gi"));
        assert_eq!(told["capacity"]["storage"], "2Gi");
        assert_eq!(told["conditions"], json!([{"type": "Mine"}]));
        assert_eq!(told["allocatedResourceStatuses"], json!({"storage": null}));
    }

    #[test]
    fn a_size_that_cannot_be_had_is_called_infeasible() {
        let old = claim("ReadWriteOnce", "1Gi", "NodeResizeInProgress");
        let told = |claim: &Value, why: &str, ends: bool| failed(claim, why, ends, Timestamp::UNIX_EPOCH);
        let infeasible = told(&old, "no room", true).expect("news");
        assert_eq!(infeasible["allocatedResourceStatuses"]["storage"], "NodeResizeInfeasible");
        assert_eq!(infeasible["conditions"][2]["message"], "failed to expand pvc with no room");
        assert_eq!(told(&json!({"status": infeasible}), "no room", true), None);
        assert!(told(&old, "busy", false).expect("news").get("allocatedResourceStatuses").is_none());
    }
}
