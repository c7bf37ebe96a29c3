//! The example driver, registered by its sockets, makes claims ready, and an API server notes what it is told.

use std::path::PathBuf;
use std::sync::Mutex as StdMutex;

use api::view::core::PodResourceClaim;
use apimachinery::{Value, json};
use bytes::Bytes;
use client::Transport;
use client::transport::{Body, ResponseFuture};
use dra_example::driver::{Driver, Settings, serve};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::pluginmanager::Registry;

/// Knows one claim, for whom it is reserved, and tells what is deleted.
struct Way {
    users: StdMutex<Vec<&'static str>>,
    deleted: mpsc::UnboundedSender<String>,
}

impl Transport for Way {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            if request.method() == http::Method::DELETE {
                self.deleted.send(request.uri().query().unwrap_or_default().to_owned()).ok();
            }
            let users: Vec<Value> = {
                let users = self.users.lock().expect("no panic");
                users.iter().map(|uid| json!({"resource": "pods", "name": uid, "uid": uid})).collect()
            };
            let result = json!({"driver": "d.org", "request": "r", "pool": "n", "device": "device-0"});
            let claim = json!({"metadata": {"name": "c", "namespace": "default", "uid": "u"},
                "status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": users}});
            let body: Body =
                Full::new(Bytes::from(claim.to_string())).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(200).body(body).expect("a response"))
        })
    }
}

/// A node with the driver on it; all of it goes at the end.
struct Node {
    root: PathBuf,
    way: Arc<Way>,
    deleted: mpsc::UnboundedReceiver<String>,
    manager: Arc<DraManager>,
    driver: JoinHandle<()>,
    registry: JoinHandle<()>,
}

impl Node {
    async fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("dra-{name}-{}", std::process::id()));
        let (deleted, deletions) = mpsc::unbounded_channel();
        let way = Arc::new(Way { users: StdMutex::default(), deleted });
        let driver = tokio::spawn(run_driver(way.clone(), root.clone()));
        let (manager, registry) = kubelet(&way, &root);
        registered(&manager).await;
        Node { root, way, deleted: deletions, manager, driver, registry }
    }

    /// A kubelet that knows only what is written down.
    async fn restart(&mut self) {
        self.registry.abort();
        (self.manager, self.registry) = kubelet(&self.way, &self.root);
        registered(&self.manager).await;
    }

    fn reserve(&self, users: &[&'static str]) {
        *self.way.users.lock().expect("no panic") = users.to_vec();
    }

    fn cdi_file(&self) -> PathBuf {
        self.root.join("cdi/d.org-u.json")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.driver.abort();
        self.registry.abort();
        std::fs::remove_dir_all(&self.root).ok();
    }
}

async fn run_driver(way: Arc<Way>, root: PathBuf) {
    let cdi_dir = root.join("cdi");
    let settings = Settings { name: "d.org".into(), node_name: "n".into(), devices: 1, cdi_dir };
    serve(Driver::new(settings, Client::new(way, "driver")), &root).await.expect("serves");
}

fn kubelet(way: &Arc<Way>, root: &Path) -> (Arc<DraManager>, JoinHandle<()>) {
    let client = Client::new(way.clone(), "kubelet");
    let plugins = Plugins::with_delay(client.clone(), "n".into(), Duration::from_millis(10));
    let manager = DraManager::with_plugins(client, root, plugins);
    let registry = Registry::new(root, vec![manager.registration()]);
    (manager, tokio::spawn(registry.run()))
}

async fn registered(manager: &DraManager) {
    while manager.plugins.get("d.org").is_err() {
        tokio::task::yield_now().await;
    }
}

fn pod(uid: &str) -> Pod {
    let mut pod = Pod::default();
    (pod.metadata.name, pod.metadata.uid) = (uid.into(), uid.into());
    pod.metadata.namespace = "default".into();
    let claim = PodResourceClaim {
        name: "mine".into(),
        resource_claim_name: Some("c".into()),
        ..PodResourceClaim::default()
    };
    pod.spec.resource_claims.push(claim);
    pod
}

fn container() -> Container {
    apimachinery::from_value(json!({"name": "a", "resources": {"claims": [{"name": "mine"}]}}))
        .expect("a container")
}

fn cdi(manager: &DraManager, uid: &str) -> Result<Vec<String>, String> {
    let options = manager.start_options(&pod(uid), &container())?;
    Ok(options.cdi_devices.into_iter().map(|device| device.name).collect())
}

#[tokio::test]
async fn a_shared_claim_is_ready_from_its_first_pod_to_its_last_over_a_restart() {
    let mut node = Node::new("shared").await;
    node.reserve(&["p", "q"]);
    node.manager.prepare(&pod("p")).await.expect("prepares");
    assert!(node.cdi_file().exists());
    node.manager.prepare(&pod("q")).await.expect("prepares");
    node.restart().await;
    assert_eq!(cdi(&node.manager, "p"), Ok(vec!["d.org/device=u-device-0".to_owned()]));
    node.manager.unprepare("p").await.expect("leaves");
    assert!(node.cdi_file().exists());
    node.manager.clone().unprepare_all_but(|uid| uid != "q").await;
    assert!(!node.cdi_file().exists());
    assert!(cdi(&node.manager, "q").is_err());
}

#[tokio::test]
async fn a_container_gets_the_devices_that_its_extended_resources_are() {
    let node = Node::new("extended").await;
    node.reserve(&["p"]);
    let mut pod = pod("p");
    pod.spec.resource_claims.clear();
    let mapping = json!({"containerName": "a", "resourceName": "e.com/gpu", "requestName": "r"});
    let status = json!({"resourceClaimName": "c", "requestMappings": [mapping]});
    pod.status.extended_resource_claim_status = apimachinery::from_value(status).expect("a status");
    node.manager.prepare(&pod).await.expect("prepares");
    let check = |name: &str, resource: &str, expect: usize| {
        let requests = json!({resource: "1"});
        let container = json!({"name": name, "resources": {"requests": requests}});
        let container: Container = apimachinery::from_value(container).expect("a container");
        let options = node.manager.start_options(&pod, &container).expect("is ready");
        assert_eq!(options.cdi_devices.len(), expect, "{name} {resource}");
        assert_eq!(node.manager.of_container(&pod, &container).len(), expect, "{name} {resource}");
    };
    check("a", "e.com/gpu", 1);
    check("b", "e.com/gpu", 0);
    check("a", "cpu", 0);
    node.manager.unprepare("p").await.expect("gives back");
    assert!(!node.cdi_file().exists());
}

#[tokio::test]
async fn a_pod_that_the_claim_is_not_reserved_for_gets_nothing() {
    let node = Node::new("reserved").await;
    let why = node.manager.prepare(&pod("p")).await.expect_err("refuses");
    assert_eq!(why, "prepare dynamic resources: pod p (p) is not allowed to use ResourceClaim c (u)");
    assert!(!node.cdi_file().exists());
}

#[tokio::test]
async fn the_slices_of_a_driver_that_stays_away_are_deleted() {
    let mut node = Node::new("away").await;
    node.driver.abort();
    let selector = "fieldSelector=spec.nodeName%3Dn%2Cspec.driver%3Dd.org";
    assert_eq!(node.deleted.recv().await.as_deref(), Some(selector));
    node.manager.clone().forget_slices().await;
    assert_eq!(node.deleted.recv().await.as_deref(), Some("fieldSelector=spec.nodeName%3Dn"));
}

#[test]
fn a_driver_must_answer_for_each_claim_and_no_other() {
    let claim = |uid: &str| Claim { uid: uid.into(), name: format!("name-of-{uid}"), ..Claim::default() };
    let asked = [claim("a"), claim("b")];
    let told = |answers: &[(&'static str, &'static str)], expect: Result<(), &str>| {
        let outcome = check("Call", &asked, answers.iter().copied());
        assert_eq!(outcome, expect.map_err(str::to_owned), "{answers:?}");
    };
    told(&[("a", ""), ("b", "")], Ok(()));
    told(&[("a", "")], Err("Call skipped 1 ResourceClaims"));
    told(&[("a", ""), ("b", "broken")], Err("Call failed for ResourceClaim name-of-b: broken"));
    told(&[("c", "")], Err("Call returned result for unknown claim UID c"));
}
