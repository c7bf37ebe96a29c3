//! A plugin on a real socket, from its registration to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::json;
use csi::pluginregistration::PluginInfo;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::proto::device_plugin_server::{DevicePlugin, DevicePluginServer};
use super::proto::registration_client::RegistrationClient;
use super::proto::*;
use super::{Count, DeviceManager, Registration};
use crate::cm::resourcestatus::{Health, ResourceHealth, ResourceStatus};
use crate::pluginmanager::PluginHandler;

const RESOURCE: &str = "example.com/thing";
/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Offers the lists of devices that the test sends.
struct Plugin {
    lists: tokio::sync::Mutex<Option<mpsc::Receiver<Result<ListAndWatchResponse, Status>>>>,
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        let get_preferred_allocation_available = true;
        Ok(Response::new(DevicePluginOptions { get_preferred_allocation_available, ..Default::default() }))
    }

    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let lists = self.lists.lock().await.take().ok_or_else(|| Status::internal("asked twice"))?;
        Ok(Response::new(ReceiverStream::new(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        // The last ones are the best.
        let of = |request: ContainerPreferredAllocationRequest| {
            let count = usize::try_from(request.allocation_size).unwrap_or(0);
            let best = request.available_device_i_ds.into_iter().rev().take(count).collect();
            ContainerPreferredAllocationResponse { device_i_ds: best }
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(of).collect();
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let of = |request: ContainerAllocateRequest| ContainerAllocateResponse {
            envs: [("THINGS".to_owned(), request.devices_ids.join(","))].into(),
            ..Default::default()
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(of).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::internal("it was not asked for"))
    }
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removes");
    }
}

/// Serves the plugin in `dir`; what is sent comes out of its `ListAndWatch`.
fn serve(
    dir: &std::path::Path,
) -> (mpsc::Sender<Result<ListAndWatchResponse, Status>>, tokio::task::AbortHandle) {
    let (lists, receiver) = mpsc::channel(4);
    let plugin = Plugin { lists: tokio::sync::Mutex::new(Some(receiver)) };
    let listener = UnixListener::bind(dir.join("thing.sock")).expect("listens");
    let server = Server::builder().add_service(DevicePluginServer::new(plugin));
    let task = tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    (lists, task.abort_handle())
}

async fn register(dir: PathBuf, request: RegisterRequest) -> Result<(), Status> {
    let socket = dir.join("kubelet.sock");
    // It is there a moment after the kubelet starts.
    let channel = loop {
        match csi::connect(&socket).await {
            Ok(channel) => break channel,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    RegistrationClient::new(channel).register(request).await.map(drop)
}

fn list(devices: &[(&str, &str)]) -> Result<ListAndWatchResponse, Status> {
    let device =
        |(id, health): &(&str, &str)| Device { id: (*id).into(), health: (*health).into(), topology: None };
    Ok(ListAndWatchResponse { devices: devices.iter().map(device).collect() })
}

fn pod(uid: &str, count: u32) -> api::view::core::Pod {
    apimachinery::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [
        {"name": "a", "resources": {"limits": {RESOURCE: count.to_string()}}}]}}))
    .expect("a pod")
}

#[tokio::test]
async fn a_plugins_devices_are_told_given_and_taken_back() {
    let root = Dir(std::env::temp_dir().join(format!("devices-{}", std::process::id())));
    let dir = root.0.join(super::DIR);
    let manager = DeviceManager::open(&root.0);
    let mut counts = manager.counts();
    let registration = Arc::new(Registration::new(manager.clone()));
    let task = tokio::spawn(registration.clone().run());
    let request = |version: &str| RegisterRequest {
        version: version.into(),
        endpoint: "thing.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    };
    let refused = register(dir.clone(), request("v0")).await.expect_err("an old version");
    assert!(refused.message().contains("not supported by kubelet"), "{refused}");
    assert!(!dir.join("DEPRECATION").exists(), "with it plugins would not register here");
    let (lists, server) = serve(&dir);
    register(dir.clone(), request("v1beta1")).await.expect("registers");
    lists.send(list(&[("x", "Healthy"), ("y", "Healthy"), ("z", "Unhealthy")])).await.expect("listens");
    let all = |counts: &super::Counts| counts.get(RESOURCE) == Some(&Count { capacity: 3, allocatable: 2 });
    tokio::time::timeout(PATIENCE, counts.wait_for(all)).await.expect("in time").expect("told");

    let one = pod("1", 1);
    manager.allocate(&one, &one.spec.containers[0], None).await.expect("given");
    let options = manager.start_options(&one, &one.spec.containers[0]).await.expect("ready");
    assert_eq!(options[0].envs["THINGS"], "y");
    let two = pod("2", 2);
    let error = manager.allocate(&two, &two.spec.containers[0], None).await.expect_err("too many");
    assert_eq!(
        error,
        "requested number of devices unavailable for example.com/thing. Requested: 2, Available: 1"
    );
    // A kubelet that starts again knows who has what.
    let again = DeviceManager::open(&root.0);
    assert_eq!(again.of_container("1", "a"), [(RESOURCE.to_owned(), vec!["y".to_owned()], vec![])]);

    let mut unwell = manager.unwell();
    lists.send(list(&[("x", "Healthy"), ("y", "Unhealthy")])).await.expect("listens");
    tokio::time::timeout(PATIENCE, unwell.wait_for(|pods| pods.contains("1")))
        .await
        .expect("in time")
        .expect("told");
    let device =
        ResourceHealth { resource_id: "y".into(), health: Health::Unhealthy, message: String::new() };
    let sick = ResourceStatus { name: RESOURCE.into(), resources: vec![device] };
    assert_eq!(manager.health("1", "a"), [sick]);
    manager.release("1");
    assert_eq!(manager.pods(), Vec::<String>::new());

    // Without its plugin no device is well.
    drop(lists);
    server.abort();
    let none = |counts: &super::Counts| counts.get(RESOURCE).is_some_and(|count| count.allocatable == 0);
    tokio::time::timeout(PATIENCE, counts.wait_for(none)).await.expect("in time").expect("told");
    task.abort();
}

#[tokio::test]
async fn a_plugin_of_the_registry_has_devices_until_its_socket_is_gone() {
    let root = Dir(std::env::temp_dir().join(format!("registry-devices-{}", std::process::id())));
    std::fs::create_dir_all(&root.0).expect("makes");
    let manager = DeviceManager::open(&root.0);
    let registration = Registration::new(manager.clone());
    let (lists, server) = serve(&root.0);
    let socket = root.0.join("thing.sock");
    let info = |name: &str, version: &str| PluginInfo {
        r#type: registration.kind().to_owned(),
        name: name.to_owned(),
        endpoint: String::new(),
        supported_versions: vec![version.to_owned()],
    };
    assert_eq!(
        registration.validate(&info(RESOURCE, "v0"), &socket),
        Err("manager version, v1beta1, is not among plugin supported versions [v0]".to_owned())
    );
    assert_eq!(
        registration.validate(&info("cpu", "v1beta1"), &socket),
        Err("invalid name of device plugin socket: the ResourceName \"cpu\" is invalid".to_owned())
    );
    let info = info(RESOURCE, "v1beta1");
    registration.validate(&info, &socket).expect("valid");
    registration.register(&info, &socket).await.expect("registers");
    lists.send(list(&[("x", "Healthy")])).await.expect("listens");
    let mut counts = manager.counts();
    let count = |allocatable| {
        move |counts: &super::Counts| counts.get(RESOURCE) == Some(&Count { capacity: 1, allocatable })
    };
    tokio::time::timeout(PATIENCE, counts.wait_for(count(1))).await.expect("in time").expect("told");
    registration.deregister(RESOURCE, &socket).await;
    tokio::time::timeout(PATIENCE, counts.wait_for(count(0))).await.expect("in time").expect("told");
    server.abort();
}
