//! The example driver, registered by its sockets, brings real volumes to pods, and an API server notes what it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::view::core::{PersistentVolume, Pod, Volume};
use apimachinery::{Value, json};
use bytes::Bytes;
use client::transport::{Body, ResponseFuture, Transport};
use client::{Client, EventRecorder};
use csi::v1::CreateVolumeRequest;
use csi::v1::controller_server::Controller;
use csi::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use csi_hostpath::driver::{Driver, Settings, serve};
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::VolumeMetrics;
use crate::pluginmanager::Registry;
use crate::volumes::downward::Allocatable;
use crate::volumes::{Context, is_mounted};

/// Knows attachments, the driver and an empty CSINode; notes what is written.
struct Api {
    written: watch::Sender<Vec<(String, Value)>>,
    /// Of every attachment.
    attachment: Value,
}

fn csi_driver() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {
        "attachRequired": true, "fsGroupPolicy": "File", "podInfoOnMount": true,
        "volumeLifecycleModes": ["Persistent", "Ephemeral"], "nodeAllocatableUpdatePeriodSeconds": 1}})
}

/// The way to it.
struct Way(Arc<Api>);

impl Transport for Way {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                let silence: Body = StreamBody::new(stream::pending()).boxed_unsync();
                return Ok(Response::new(silence));
            }
            if request.method() != http::Method::GET {
                let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
                self.0.written.send_modify(|written| written.push((path.clone(), body)));
            }
            let answer = if path.contains("/volumeattachments/") {
                json!({"metadata": {"name": "a"}, "status": self.0.attachment})
            } else if path.ends_with("/csidrivers") {
                json!({"metadata": {"resourceVersion": "1"}, "items": [csi_driver()]})
            } else if path.contains("/csidrivers/") {
                csi_driver()
            } else {
                json!({"metadata": {"name": "n"}, "spec": {}})
            };
            let body: Body =
                Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(200).body(body).expect("a response"))
        })
    }
}

impl Api {
    fn last(&self, path: &str, field: &str) -> Value {
        let written = self.written.borrow();
        let found = written.iter().rev().find(|(at, _)| at.ends_with(path));
        found.and_then(|(_, body)| body.pointer(field).cloned()).unwrap_or_default()
    }
}

/// A node with the driver on it; all of it goes at the end.
struct Node {
    root: PathBuf,
    api: Arc<Api>,
    client: Client,
    recorder: EventRecorder,
    drivers: Arc<Drivers>,
    metrics: Arc<VolumeMetrics>,
    driver: Driver,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    async fn new(name: &str) -> Self {
        Self::of(name, json!({"attached": true})).await
    }

    /// Where attachments fare like this.
    async fn of(name: &str, attachment: Value) -> Self {
        let root = std::env::temp_dir().join(format!("csi-{name}-{}", std::process::id()));
        let settings = Settings {
            name: "d".into(),
            node_id: "id".into(),
            state_dir: root.join("state"),
            volumes_max: 0,
        };
        let driver = Driver::new(settings).expect("opens");
        let api = Arc::new(Api { written: watch::Sender::default(), attachment });
        let client = Client::new(Arc::new(Way(api.clone())), "kubelet");
        let recorder = EventRecorder::new(client.clone(), "kubelet", "n");
        let drivers = Arc::default();
        let mut node =
            Node { root, api, client, recorder, drivers, metrics: Arc::default(), driver, tasks: Vec::new() };
        node.start().await;
        node
    }

    /// The driver, and a kubelet that knows nothing of what was before.
    async fn start(&mut self) {
        self.drivers = Arc::default();
        let (driver, root) = (self.driver.clone(), self.root.clone());
        self.tasks.push(tokio::spawn(async move { serve(driver, &root).await.expect("serves") }));
        let registration = Registration {
            drivers: self.drivers.clone(),
            client: self.client.clone(),
            node_name: "n".into(),
            root: self.root.clone(),
            metrics: self.metrics.clone(),
        };
        let registry = Registry::new(&self.root, vec![Arc::new(registration)]);
        self.tasks.push(tokio::spawn(registry.run()));
        self.drivers.registered("d").await;
    }

    fn stop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    async fn make(&self, handle: &str, access_type: AccessType) {
        let capability = csi::v1::VolumeCapability { access_type: Some(access_type), access_mode: None };
        let request = CreateVolumeRequest {
            name: handle.into(),
            volume_capabilities: vec![capability],
            ..Default::default()
        };
        self.driver.create_volume(tonic::Request::new(request)).await.expect("makes");
    }

    async fn set_up(&self, pod: &Pod, source: &Source, claim: Option<&Value>) -> Result<PathBuf, Error> {
        let cx = Context {
            client: &self.client,
            recorder: &self.recorder,
            root: &self.root,
            local_path_root: None,
            csi_drivers: &self.drivers,
            metrics: &self.metrics,
            node_name: "n",
            allocatable: Allocatable { milli_cpu: 0, memory_bytes: 0, ephemeral_storage_bytes: 0 },
            pod_ips: &[],
            host_ips: &[],
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        set_up(&cx, pod, source, claim).await.map(|(path, _)| path)
    }

    async fn tear_down(&self, uid: &str) {
        tear_down(&self.client, &self.drivers, &self.root, "n", uid).await.expect("takes away");
    }

    fn staged(&self, handle: &str) -> PathBuf {
        let name = api::storage::csi::hex_digest(&[handle]);
        self.root.join("plugins/kubernetes.io/csi/d").join(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        crate::volumes::unmount_all(&self.root).expect("unmounts");
        fs::remove_dir_all(&self.root).expect("removes");
    }
}

fn pod(uid: &str) -> Pod {
    let pod = json!({"metadata": {"name": uid, "namespace": "x", "uid": uid}, "spec": {"securityContext": {"fsGroup": 4321}}});
    apimachinery::from_value(pod).expect("a pod")
}

fn source(mode: &str) -> Source {
    let volume: PersistentVolume = apimachinery::from_value(json!({"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "capacity": {"storage": "2Mi"},
        "csi": {"driver": "d", "volumeHandle": "h"}}}))
    .expect("a volume");
    let used = Volume { name: "data".into(), ..Default::default() };
    Source::persistent(&used, &volume, volume.spec.csi.as_ref().expect("CSI"))
}

fn mounted() -> AccessType {
    AccessType::Mount(MountVolume::default())
}

#[tokio::test]
async fn a_volume_is_staged_once_for_all_pods_and_taken_away_with_the_last() {
    let node = Node::new("shared").await;
    assert_eq!(node.api.last("/csinodes/n", "/spec/drivers/0/nodeID"), "id");
    node.make("h", mounted()).await;
    for uid in ["1", "2", "2"] {
        let place = node.set_up(&pod(uid), &source("Filesystem"), None).await.expect("mounts");
        assert!(is_mounted(&place));
        fs::write(place.join("data"), "1").expect("writes");
    }
    use std::os::unix::fs::MetadataExt;
    let group = fs::metadata(node.staged("h").join("globalmount")).expect("there").gid();
    assert_eq!(group, 4321);
    assert_eq!(node.api.last("/nodes/n/status", "/status/volumesInUse"), json!(["kubernetes.io/csi/d^h"]));
    let usage = stats(&node.drivers, &node.root, "1").await;
    assert_eq!((usage[0].name.as_str(), usage[0].is_abnormal), ("data", Some(false)));
    node.tear_down("1").await;
    assert!(node.staged("h").join("globalmount/data").exists());
    node.tear_down("2").await;
    assert!(!node.staged("h").exists());
    assert_eq!(node.api.last("/nodes/n/status", "/status/volumesInUse"), json!([]));
}

#[tokio::test]
async fn a_volume_for_one_pod_waits_until_the_other_is_gone() {
    let node = Node::new("single").await;
    node.make("h", mounted()).await;
    let mut source = source("Filesystem");
    source.access_modes = vec!["ReadWriteOncePod".to_owned()];
    node.set_up(&pod("1"), &source, None).await.expect("mounts");
    let refused = node.set_up(&pod("2"), &source, None).await.expect_err("is in use");
    assert_eq!(
        refused.to_string(),
        "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
    );
    node.tear_down("1").await;
    node.set_up(&pod("2"), &source, None).await.expect("mounts");
    node.tear_down("2").await;
}

#[tokio::test]
async fn what_was_refused_for_good_is_not_there_to_be_unstaged() {
    let node = Node::new("absent").await;
    node.set_up(&pod("1"), &source("Filesystem"), None).await.expect_err("there is no such volume");
    assert!(!node.staged("h").exists());
}

#[tokio::test]
async fn a_volume_that_stays_staged_is_in_use_and_gone_when_it_can_be() {
    let node = Node::new("busy").await;
    node.make("h", mounted()).await;
    let place = node.set_up(&pod("1"), &source("Filesystem"), None).await.expect("mounts");
    fs::write(place.join("data"), "1").expect("writes");
    let user = fs::File::open(node.staged("h").join("globalmount/data")).expect("opens");
    let in_use = |(path, body): &(String, Value)| {
        path.ends_with("/nodes/n/status").then(|| body["status"]["volumesInUse"].clone())
    };
    node.tear_down("1").await;
    assert!(!place.exists());
    let mut written = node.api.written.subscribe();
    assert_eq!(written.borrow().iter().rev().find_map(in_use), Some(json!(["kubernetes.io/csi/d^h"])));
    drop(user);
    let is_free = |written: &Vec<(String, Value)>| written.iter().rev().find_map(in_use) == Some(json!([]));
    written.wait_for(is_free).await.expect("the node is here");
    assert!(!node.staged("h").exists());
}

#[tokio::test]
async fn a_volume_that_is_not_attached_yet_is_awaited() {
    let node = Node::of("unattached", json!({"attached": false})).await;
    node.make("h", mounted()).await;
    let refused = node.set_up(&pod("1"), &source("Filesystem"), None).await;
    assert!(matches!(refused, Err(Error::NotAttached { .. })), "{refused:?}");
    assert!(place::published(&node.root).is_empty());
}

#[tokio::test]
async fn a_pod_that_waited_long_for_room_is_not_to_be_on_this_node() {
    let full = json!({"attached": false, "attachError": {"message": "full", "errorCode": 8}});
    let node = Node::of("full", full).await;
    let mut waiting = pod("1");
    let mut refused = async |seconds: i64| {
        waiting.status.start_time = jiff::Timestamp::from_second(-seconds).ok();
        node.set_up(&waiting, &source("Filesystem"), None).await.expect_err("is not attached")
    };
    assert!(matches!(refused(122).await, Error::NotAttached { .. }));
    assert_eq!(
        refused(123).await.to_string(),
        "Node has reached its volume attachment limit, rejecting pod. unattached volumes=[data]: full"
    );
}

#[tokio::test]
async fn a_driver_is_asked_again_how_many_volumes_its_node_may_have() {
    let node = Node::new("asked").await;
    let mut written = node.api.written.subscribe();
    let is_told = |(path, _): &&(String, Value)| path.ends_with("/csinodes/n");
    let told = |written: &Vec<(String, Value)>| written.iter().filter(is_told).count();
    written.wait_for(|written| told(written) >= 2).await.expect("the node is here");
}

#[tokio::test]
async fn a_pods_own_volume_needs_no_attachment_and_goes_with_its_pod() {
    let node = Node::of("inline", json!({"attached": false})).await;
    let inline = apimachinery::from_value(json!({"driver": "d"})).expect("a source");
    let source = Source::inline(&pod("1"), "own", &inline);
    let place = node.set_up(&pod("1"), &source, None).await.expect("mounts");
    fs::write(place.join("data"), "1").expect("writes");
    node.tear_down("1").await;
    assert!(!place.exists() && !node.root.join("state").join(&source.handle).exists());
}

#[tokio::test]
async fn a_device_is_brought_to_its_pod_and_taken_away() {
    use std::os::unix::fs::FileTypeExt;
    let node = Node::new("device").await;
    node.make("h", AccessType::Block(BlockVolume {})).await;
    for _ in 0..2 {
        let place = node.set_up(&pod("1"), &source("Block"), None).await.expect("maps");
        assert!(fs::metadata(&place).expect("there").file_type().is_block_device());
    }
    assert_eq!(stats(&node.drivers, &node.root, "1").await[0].name, "data");
    node.tear_down("1").await;
    assert!(place::published(&node.root).is_empty() && place::staged(&node.root).is_empty());
}

#[tokio::test]
async fn a_claim_that_waits_for_its_node_is_told_that_its_volume_grew() {
    let node = Node::new("grown").await;
    node.make("h", mounted()).await;
    let claim = json!({"metadata": {"name": "c", "namespace": "x", "uid": "cu"},
        "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {
            "capacity": {"storage": "1Mi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending"},
            "conditions": [{"type": "FileSystemResizePending", "status": "True"}]}});
    node.set_up(&pod("1"), &source("Filesystem"), None).await.expect("mounts");
    node.set_up(&pod("1"), &source("Filesystem"), Some(&claim)).await.expect("grows");
    let told = |field: &str| node.api.last("/persistentvolumeclaims/c/status", field);
    assert_eq!((told("/status/capacity/storage"), told("/status/conditions")), (json!("2Mi"), json!([])));
    node.tear_down("1").await;
}

#[tokio::test]
async fn what_a_killed_kubelet_left_is_taken_away_by_the_next() {
    let mut node = Node::new("killed").await;
    node.make("h", mounted()).await;
    let place = node.set_up(&pod("1"), &source("Filesystem"), None).await.expect("mounts");
    node.stop();
    node.start().await;
    assert!(is_mounted(&place));
    node.tear_down("1").await;
    assert!(!place.exists() && !node.staged("h").exists());
}

#[tokio::test]
async fn what_no_pod_has_is_unstaged_when_the_driver_comes() {
    let node = Node::new("unused").await;
    node.make("h", mounted()).await;
    node.set_up(&pod("1"), &source("Filesystem"), None).await.expect("mounts");
    let record = place::published(&node.root).remove(0);
    let target = place::Place::published(&node.root, "1", &record);
    nix::mount::umount2(&target.path, nix::mount::MntFlags::empty()).expect("unmounts");
    target.remove().expect("removes");
    let driver = node.drivers.registered("d").await;
    tear_down::unstage_unused(&driver, "d", Path::new(&node.root)).await;
    assert!(!node.staged("h").exists());
}
