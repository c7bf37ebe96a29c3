//! The mirror pod of a static pod: made when it is missing, made anew when it shows another pod or is being deleted.

use std::sync::Arc;
use std::time::Duration;

use api::resource::{NODES, PODS};
use api::view::core::{Node, Pod};
use apimachinery::{Value, json};
use client::{Client, DeleteOptions};
use tokio::sync::watch;

use super::{MIRROR, StaticPod, mirrored_uid};

/// Pause before the API server is asked again, for one that is not there yet.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    None,
    Create,
    /// Another is made once it is gone.
    Delete,
}

fn next(pod: &StaticPod, mirror: Option<&Pod>) -> Step {
    match mirror {
        None => Step::Create,
        Some(mirror) if mirror.metadata.is_being_deleted() => Step::Delete,
        Some(mirror) if mirrored_uid(mirror) != Some(pod.uid()) => Step::Delete,
        Some(_) => Step::None,
    }
}

/// Sees that the API shows the pod; `seen` is what the API shows under its name. Until it is dropped.
pub async fn keep(
    client: Client,
    node_name: String,
    pod: Arc<StaticPod>,
    mut seen: watch::Receiver<Option<Arc<Pod>>>,
) {
    loop {
        let mirror = seen.borrow_and_update().clone();
        let done = match (next(&pod, mirror.as_deref()), mirror) {
            (Step::Create, _) => create(&client, &node_name, &pod).await,
            (Step::Delete, Some(mirror)) => delete(&client, &mirror).await,
            _ => Ok(()),
        };
        let changed = match done {
            Ok(()) => seen.changed().await,
            Err(error) => {
                tracing::warn!(pod = %pod.name(), %error, "mirror pod could not be written, will retry");
                tokio::time::timeout(RETRY, seen.changed()).await.unwrap_or(Ok(()))
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn create(client: &Client, node_name: &str, pod: &StaticPod) -> Result<(), client::Error> {
    let node: Node = client.get(NODES, "", node_name).await?;
    let mirror = mirror(pod, node_name, &node.metadata.uid);
    match client.create(PODS, &pod.pod.metadata.namespace, &mirror).await {
        // The informer will show it.
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// The object as it stands in the file, with the node as its owner.
fn mirror(pod: &StaticPod, node_name: &str, node_uid: &str) -> Value {
    let mut mirror = pod.object.clone();
    let metadata = &mut mirror["metadata"];
    metadata["annotations"][MIRROR] = pod.uid().into();
    metadata["ownerReferences"] = json!([
        {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid, "controller": true}]);
    if let Some(metadata) = metadata.as_object_mut() {
        // The API gives it one of its own.
        metadata.remove("uid");
    }
    mirror
}

/// Removes a mirror pod at once: it is a picture only.
pub async fn delete(client: &Client, mirror: &Pod) -> Result<(), client::Error> {
    let meta = &mirror.metadata;
    let options =
        DeleteOptions { grace_period_seconds: Some(0), uid: Some(meta.uid.clone()), ..Default::default() };
    match client.delete(PODS, &meta.namespace, &meta.name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::staticpods::manifest;

    fn static_pod() -> StaticPod {
        let text =
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: b}]}}";
        let origin = manifest::Origin::File("f".as_ref());
        let context = manifest::Context { origin, node_name: "n", now: Timestamp::UNIX_EPOCH };
        manifest::parse(text.as_bytes(), context).expect("a pod")
    }

    #[test]
    fn a_mirror_shows_the_static_pod_and_belongs_to_the_node() {
        let pod = static_pod();
        let shown = mirror(&pod, "n", "node-uid");
        assert_eq!(shown["metadata"]["annotations"][MIRROR], pod.uid());
        assert_eq!(shown["metadata"]["ownerReferences"][0]["uid"], "node-uid");
        assert!(shown["metadata"].get("uid").is_none());
        let shown: Pod = apimachinery::from_value(shown).expect("a pod");
        assert_eq!(next(&pod, Some(&shown)), Step::None);
        assert_eq!(super::super::running(Arc::new(shown)).metadata.uid, pod.uid());
    }

    #[test]
    fn a_mirror_that_goes_or_shows_another_pod_is_replaced() {
        let pod = static_pod();
        let mut shown: Pod = apimachinery::from_value(mirror(&pod, "n", "u")).expect("a pod");
        assert_eq!(next(&pod, None), Step::Create);
        shown.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(next(&pod, Some(&shown)), Step::Delete);
        shown.metadata.deletion_timestamp = None;
        shown.metadata.annotations.insert(MIRROR.into(), "other".into());
        assert_eq!(next(&pod, Some(&shown)), Step::Delete);
    }
}
