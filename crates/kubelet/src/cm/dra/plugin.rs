//! The drivers of this node: which of them answer, and what becomes of their ResourceSlices when none does (follows
//! upstream's `DRAPluginManager`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::resource::RESOURCE_SLICES;
use bytes::Bytes;
use client::{Client, DeleteOptions};
use csi::pluginregistration::PluginInfo;
use dra::Version;
use dra::v1::{
    NodePrepareResourcesRequest, NodePrepareResourcesResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, async_trait};

use super::health::HealthInfos;
use crate::cm::resourcestatus::Health;
use crate::pluginmanager::{self, PluginHandler};

/// How long a driver may take over one call (upstream: `defaultClientCallTimeout`).
const TIMEOUT: Duration = Duration::from_secs(45);
/// How long a driver may be away, as when it is replaced, before its devices count as gone (upstream:
/// `defaultWipingDelay`).
const WIPING_DELAY: Duration = Duration::from_secs(30);
/// Between attempts to hear how devices are.
const HEALTH_RETRY: Duration = Duration::from_secs(5);
/// Between attempts to reach a driver that does not answer, and to delete slices.
const RETRY: Duration = Duration::from_secs(1);

/// One way to a driver. There may be several while it is replaced.
#[derive(Clone)]
pub struct Plugin {
    pub driver: String,
    endpoint: PathBuf,
    version: Version,
}

struct Instance {
    plugin: Plugin,
    is_connected: bool,
    follower: AbortHandle,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

#[derive(Default)]
struct State {
    /// By driver, in the order in which they came.
    instances: BTreeMap<String, Vec<Instance>>,
    /// What is to delete the slices of a driver that is away.
    wipes: BTreeMap<String, AbortHandle>,
}

pub struct Plugins {
    client: Client,
    node_name: String,
    wiping_delay: Duration,
    state: Mutex<State>,
    health: Mutex<HealthInfos>,
    /// Counts up when drivers tell otherwise than before how devices are.
    told: watch::Sender<u64>,
}

impl Plugin {
    pub async fn prepare(
        &self,
        request: NodePrepareResourcesRequest,
    ) -> Result<NodePrepareResourcesResponse, Status> {
        self.call(async |channel| dra::prepare(channel, self.version, request).await.map(Response::new)).await
    }

    pub async fn unprepare(
        &self,
        request: NodeUnprepareResourcesRequest,
    ) -> Result<NodeUnprepareResourcesResponse, Status> {
        self.call(async |channel| dra::unprepare(channel, self.version, request).await.map(Response::new))
            .await
    }

    async fn call<A, F>(&self, ask: impl FnOnce(Channel) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        pluginmanager::call(&self.endpoint, TIMEOUT, ask).await
    }

    /// Returns when the connection is lost; `connected` is called once there is one.
    async fn follow(&self, connected: impl FnOnce()) -> io::Result<()> {
        let stream = TokioIo::new(UnixStream::connect(&self.endpoint).await?);
        let handshake = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        connected();
        let outcome = connection.await.map_err(io::Error::other);
        // A connection that nobody can send on any more ends by itself.
        drop(sender);
        outcome
    }
}

impl Plugins {
    pub fn new(client: Client, node_name: String) -> Arc<Self> {
        Self::with_delay(client, node_name, WIPING_DELAY)
    }

    pub fn with_delay(client: Client, node_name: String, wiping_delay: Duration) -> Arc<Self> {
        Arc::new(Plugins {
            client,
            node_name,
            wiping_delay,
            state: Mutex::default(),
            health: Mutex::default(),
            told: watch::Sender::default(),
        })
    }

    /// The newest way to the driver that answers, or else the newest.
    pub fn get(&self, driver: &str) -> Result<Plugin, String> {
        let state = self.state();
        let instances = state.instances.get(driver).map(Vec::as_slice).unwrap_or_default();
        let found = instances.iter().rfind(|instance| instance.is_connected).or(instances.last());
        found
            .map(|instance| instance.plugin.clone())
            .ok_or_else(|| format!("DRA driver {driver} is not registered"))
    }

    fn add(self: &Arc<Self>, plugin: Plugin) -> Result<(), String> {
        let mut state = self.state();
        let instances = state.instances.entry(plugin.driver.clone()).or_default();
        if instances.iter().any(|known| known.plugin.endpoint == plugin.endpoint) {
            let (endpoint, driver) = (plugin.endpoint.display(), &plugin.driver);
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {driver}"));
        }
        let follower = tokio::spawn(self.clone().follow(plugin.clone())).abort_handle();
        instances.push(Instance { plugin: plugin.clone(), is_connected: false, follower });
        self.schedule_wipe(&mut state, &plugin.driver);
        Ok(())
    }

    async fn follow(self: Arc<Self>, plugin: Plugin) {
        loop {
            let connected = plugin.follow(|| self.set_connected(&plugin, true));
            tokio::select! {
                outcome = connected => {
                    tracing::debug!(driver = plugin.driver, ?outcome, "no connection to the driver");
                }
                () = self.follow_health(&plugin) => {}
            }
            self.set_connected(&plugin, false);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes over what the driver tells of its devices, for ever; most tell nothing.
    async fn follow_health(&self, plugin: &Plugin) {
        loop {
            let outcome = self.hear_health(plugin).await;
            let is_news = self.healths().clear(&plugin.driver);
            self.tell(is_news);
            match outcome {
                Err(status) if status.code() == Code::Unimplemented => std::future::pending().await,
                _ => tokio::time::sleep(HEALTH_RETRY).await,
            }
        }
    }

    async fn hear_health(&self, plugin: &Plugin) -> Result<(), Status> {
        let mut stream = dra::watch_health(csi::connect(&plugin.endpoint).await?).await?;
        while let Some(news) = stream.message().await? {
            let is_news = self.healths().update(&plugin.driver, news.devices, Timestamp::now());
            self.tell(is_news);
        }
        Ok(())
    }

    fn tell(&self, is_news: bool) {
        if is_news {
            self.told.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    pub fn told(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// How a device is, and what more its driver says of that.
    pub fn health(&self, driver: &str, pool: &str, device: &str, now: Timestamp) -> (Health, String) {
        self.healths().get(driver, pool, device, now)
    }

    fn healths(&self) -> MutexGuard<'_, HealthInfos> {
        self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_connected(self: &Arc<Self>, plugin: &Plugin, is_connected: bool) {
        let mut state = self.state();
        let instances = state.instances.get_mut(&plugin.driver).into_iter().flatten();
        for instance in instances.filter(|known| known.plugin.endpoint == plugin.endpoint) {
            instance.is_connected = is_connected;
        }
        self.schedule_wipe(&mut state, &plugin.driver);
    }

    /// Slices of a driver that answers stay; those of one that is away go after a while.
    fn schedule_wipe(self: &Arc<Self>, state: &mut State, driver: &str) {
        let instances = state.instances.get(driver).map(Vec::as_slice).unwrap_or_default();
        if instances.iter().any(|instance| instance.is_connected) {
            if let Some(wipe) = state.wipes.remove(driver) {
                wipe.abort();
            }
        } else if !state.wipes.contains_key(driver) {
            let (plugins, name) = (self.clone(), driver.to_owned());
            let wipe = tokio::spawn(async move {
                tokio::time::sleep(plugins.wiping_delay).await;
                plugins.wipe(Some(&name)).await;
            });
            state.wipes.insert(driver.to_owned(), wipe.abort_handle());
        }
    }

    /// Deletes the node's slices, of one driver or of all. When the kubelet starts no driver has registered yet, and
    /// pods are better not sent to devices that may never come back.
    pub async fn wipe(&self, driver: Option<&str>) {
        let mut selector = format!("fieldSelector=spec.nodeName%3D{}", self.node_name);
        if let Some(driver) = driver {
            selector.push_str(&format!("%2Cspec.driver%3D{driver}"));
        }
        loop {
            let outcome = self
                .client
                .delete_collection(RESOURCE_SLICES, "", &selector, &DeleteOptions::default())
                .await;
            match outcome {
                Err(error) if !error.is_not_found() => {
                    tracing::debug!(selector, %error, "resource slices not deleted, will retry");
                }
                _ => return,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the plugin registry hands drivers to.
pub struct Registration(pub Arc<Plugins>);

#[async_trait]
impl PluginHandler for Registration {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    fn validate(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        version(info, endpoint).map(drop)
    }

    async fn register(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        let version = version(info, endpoint)?;
        self.0.add(Plugin { driver: info.name.clone(), endpoint: endpoint.to_owned(), version })
    }

    async fn deregister(&self, name: &str, endpoint: &Path) {
        let mut state = self.0.state();
        if let Some(instances) = state.instances.get_mut(name) {
            instances.retain(|instance| instance.plugin.endpoint != endpoint);
        }
        self.0.schedule_wipe(&mut state, name);
    }
}

/// The newest version that both speak.
fn version(info: &PluginInfo, endpoint: &Path) -> Result<Version, String> {
    let PluginInfo { name, supported_versions: offered, .. } = info;
    Version::choose(offered).ok_or_else(|| {
        let known: Vec<&str> = Version::SERVICES.iter().map(|(service, _)| *service).collect();
        let why = match offered.as_slice() {
            [] => "empty list of supported gRPC services (aka supported versions)".to_owned(),
            _ => format!(
                "none of services supported by the plugin ({offered:?}) are supported by the kubelet ({known:?})"
            ),
        };
        let endpoint = endpoint.display();
        format!("invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: {why}")
    })
}
