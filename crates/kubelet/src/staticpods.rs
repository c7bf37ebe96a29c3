//! Static pods: pods that files on the node or a URL describe, which run whether or not an API server answers. Each is
//! shown in the API by a mirror pod (follows the kubelet's `config/file.go`, `config/common.go` and
//! `pod/mirror_client.go`).

mod files;
mod manifest;
pub mod mirror;
mod url;

use std::sync::Arc;

use api::view::core::Pod;
use apimachinery::Value;
use apimachinery::meta::NamespacedName;

pub use files::watch_files;
pub use url::Source;

/// Where a pod comes from: `file`, `http`, or `api` where it is missing.
const SOURCE: &str = "kubernetes.io/config.source";
/// What a static pod is made of, in one number; also its uid.
const HASH: &str = "kubernetes.io/config.hash";
/// The hash of the static pod that a mirror pod shows.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// When the kubelet first saw the text.
const SEEN: &str = "kubernetes.io/config.seen";

/// A pod that a file or the URL describes.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPod {
    pub pod: Arc<Pod>,
    /// The whole object, of which the mirror pod is a copy.
    object: Value,
}

/// What is described now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Described {
    files: Vec<Arc<StaticPod>>,
    /// None until the URL has answered: of the pods that run, any may be its.
    url: Option<Vec<Arc<StaticPod>>>,
}

impl Described {
    /// Where there is no URL to wait for.
    pub fn without_url() -> Self {
        Described { url: Some(Vec::new()), ..Described::default() }
    }

    /// Whether all that describe pods have been heard.
    pub fn is_complete(&self) -> bool {
        self.url.is_some()
    }

    /// Of two with one name that of the file counts.
    pub fn pods(&self) -> Vec<Arc<StaticPod>> {
        let is_free = |pod: &&Arc<StaticPod>| self.files.iter().all(|file| file.name() != pod.name());
        self.files.iter().chain(self.url.iter().flatten().filter(is_free)).cloned().collect()
    }
}

impl StaticPod {
    pub fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }

    pub fn name(&self) -> NamespacedName {
        self.pod.metadata.namespaced_name()
    }
}

/// Whether a file or the URL describes the pod. The mirror of such a pod counts too, for it carries the same annotations.
pub fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.get(SOURCE).is_some_and(|source| source != "api")
}

/// The uid of the static pod that this pod is a mirror of.
pub fn mirrored_uid(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.get(MIRROR).map(String::as_str)
}

/// The pod that runs: a mirror has an identity of its own in the API only.
pub fn running(pod: Arc<Pod>) -> Arc<Pod> {
    match mirrored_uid(&pod).map(str::to_owned) {
        None => pod,
        Some(uid) => {
            let mut pod = (*pod).clone();
            pod.metadata.uid = uid;
            Arc::new(pod)
        }
    }
}
