//! The two ways in which device plugins register, on the kubelet's own socket and in its plugin registry, and each one's
//! way from there on (follows `plugin/v1beta1`).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::validation::is_extended_resource;
use csi::pluginregistration::PluginInfo;
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use tonic::transport::Server;

use super::DeviceManager;
use super::endpoint::Endpoint;
use super::proto::registration_server::{self, RegistrationServer};
use super::proto::{Empty, RegisterRequest};
use crate::cm::sockets;
use crate::pluginmanager::PluginHandler;

const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";
/// How long a resource outlives its plugin, which may only be starting again (upstream's `endpointStopGracePeriod`).
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Takes plugins in.
pub struct Registration {
    manager: Arc<DeviceManager>,
    /// Who follows the plugin of each resource, or waits for one to come back.
    followed: Mutex<BTreeMap<String, AbortHandle>>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let followed = self.followed.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        followed.values().for_each(AbortHandle::abort);
    }
}

impl Registration {
    pub fn new(manager: Arc<DeviceManager>) -> Self {
        Registration { manager, followed: Mutex::default() }
    }

    /// Serves the kubelet's own socket, for ever. Plugins watch for it to be made anew: then the kubelet has started
    /// again, and they register again.
    pub async fn run(self: Arc<Self>) {
        let service = || Server::builder().add_service(RegistrationServer::new(Registrar(self.clone())));
        sockets::serve("device plugins cannot register", || listen(&self.manager.dir), service).await;
    }

    /// Takes over what the plugin of a resource tells.
    async fn follow(&self, resource: &str, socket: &Path) -> Result<(), tonic::Status> {
        tracing::info!(resource, socket = %socket.display(), "device plugin registers");
        self.manager.metrics.registered(resource);
        let plugin = Endpoint::connect(socket).await?;
        let (manager, name) = (self.manager.clone(), resource.to_owned());
        self.put(resource, async move {
            if let Err(status) = follow(&manager, &name, plugin).await {
                tracing::warn!(resource = name, error = status.message(), "device plugin does not answer");
            }
            give_up(&manager, &name).await;
        });
        Ok(())
    }

    /// Does this for a resource, and nothing else any more.
    fn put(&self, resource: &str, work: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(work).abort_handle();
        let mut followed = self.followed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(before) = followed.insert(resource.to_owned(), task) {
            before.abort();
        }
    }
}

/// Sockets of plugins of the kubelet before are taken away with its own. There is no file `DEPRECATION`, by which plugins
/// would take it that the registry finds them: upstream has the code for one, which nothing calls.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(dir)?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    UnixListener::bind(dir.join(SOCKET))
}

async fn follow(manager: &DeviceManager, resource: &str, plugin: Endpoint) -> Result<(), tonic::Status> {
    let mut lists = plugin.devices().await?;
    manager
        .endpoints
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .insert(resource.to_owned(), plugin);
    while let Some(list) = lists.message().await? {
        manager.update(resource, list.devices);
    }
    Ok(())
}

/// The plugin is not there, but may come back for a while.
async fn give_up(manager: &DeviceManager, resource: &str) {
    manager.lost(resource);
    tokio::time::sleep(GRACE).await;
    manager.forget(resource);
}

fn check_name(resource: &str) -> Result<(), String> {
    match is_extended_resource(resource) {
        true => Ok(()),
        false => Err(format!("the ResourceName {resource:?} is invalid")),
    }
}

/// The kubelet's own socket.
struct Registrar(Arc<Registration>);

#[tonic::async_trait]
impl registration_server::Registration for Registrar {
    async fn register(
        &self,
        request: tonic::Request<RegisterRequest>,
    ) -> Result<tonic::Response<Empty>, tonic::Status> {
        let RegisterRequest { version, endpoint, resource_name, .. } = request.into_inner();
        if version != VERSION {
            return Err(tonic::Status::invalid_argument(format!(
                "requested API version {version:?} is not supported by kubelet. Supported version is [{VERSION:?}]"
            )));
        }
        check_name(&resource_name).map_err(tonic::Status::invalid_argument)?;
        self.0.follow(&resource_name, &self.0.manager.dir.join(endpoint)).await?;
        Ok(tonic::Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl PluginHandler for Registration {
    fn kind(&self) -> &'static str {
        "DevicePlugin"
    }

    fn validate(&self, info: &PluginInfo, _: &Path) -> Result<(), String> {
        if !info.supported_versions.iter().any(|version| version == VERSION) {
            let versions = info.supported_versions.join(" ");
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{versions}]"
            ));
        }
        check_name(&info.name).map_err(|why| format!("invalid name of device plugin socket: {why}"))
    }

    async fn register(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        self.follow(&info.name, endpoint).await.map_err(|status| status.message().to_owned())
    }

    async fn deregister(&self, name: &str, _: &Path) {
        let (manager, resource) = (self.manager.clone(), name.to_owned());
        self.put(name, async move { give_up(&manager, &resource).await });
    }
}
