//! The socket on which device plugins register, and each one's way from there on (follows `plugin/v1beta1`).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::DeviceManager;
use super::endpoint::Endpoint;
use super::proto::registration_server::{Registration, RegistrationServer};
use super::proto::{Empty, RegisterRequest};

const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";
/// Between attempts to listen.
const RETRY: Duration = Duration::from_secs(2);
/// How long a resource outlives its plugin, which may only be starting again (upstream's `endpointStopGracePeriod`).
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Plugins watch for the socket to be made anew: then the kubelet has started again, and they register again.
pub async fn serve(manager: Arc<DeviceManager>) {
    loop {
        let listening = listen(&manager.dir);
        let served = async {
            let service =
                RegistrationServer::new(Registrar { manager: manager.clone(), followed: Mutex::default() });
            let incoming = UnixListenerStream::new(listening?);
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .map_err(io::Error::other)
        };
        if let Err(error) = served.await {
            tracing::warn!(%error, "device plugins cannot register, will retry");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Sockets of plugins of the kubelet before are taken away with its own.
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

struct Registrar {
    manager: Arc<DeviceManager>,
    /// Who follows the plugin of each resource.
    followed: Mutex<BTreeMap<String, AbortHandle>>,
}

impl Drop for Registrar {
    fn drop(&mut self) {
        let followed = self.followed.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        followed.values().for_each(AbortHandle::abort);
    }
}

#[tonic::async_trait]
impl Registration for Registrar {
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
        if !is_extended_resource(&resource_name) {
            return Err(tonic::Status::invalid_argument(format!(
                "the ResourceName {resource_name:?} is invalid"
            )));
        }
        tracing::info!(resource = resource_name, endpoint, "device plugin registers");
        let follow = follow(self.manager.clone(), resource_name.clone(), endpoint);
        let task = tokio::spawn(follow).abort_handle();
        let mut followed = self.followed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The one that was behind the name before is no more.
        if let Some(before) = followed.insert(resource_name, task) {
            before.abort();
        }
        Ok(tonic::Response::new(Empty {}))
    }
}

/// Names with a domain that is not Kubernetes' own.
fn is_extended_resource(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, rest)| {
        let own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
        !domain.is_empty() && !rest.is_empty() && !own && !name.starts_with("requests.")
    })
}

/// Takes over what the plugin tells until it ends, and gives it up when it stays away.
async fn follow(manager: Arc<DeviceManager>, resource: String, endpoint: String) {
    if let Err(status) = try_follow(&manager, &resource, &endpoint).await {
        tracing::warn!(resource, error = status.message(), "device plugin does not answer");
    }
    manager.lost(&resource);
    tokio::time::sleep(GRACE).await;
    manager.forget(&resource);
}

async fn try_follow(manager: &DeviceManager, resource: &str, endpoint: &str) -> Result<(), tonic::Status> {
    let plugin = Endpoint::connect(&manager.dir.join(endpoint)).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_plugins_have_a_domain_of_their_own() {
        for good in ["vendor.com/gpu", "example.com/a.b"] {
            assert!(is_extended_resource(good), "{good}");
        }
        for bad in ["cpu", "kubernetes.io/x", "node.kubernetes.io/x", "/x", "a.b/", "requests.a.b/c"] {
            assert!(!is_extended_resource(bad), "{bad}");
        }
    }
}
