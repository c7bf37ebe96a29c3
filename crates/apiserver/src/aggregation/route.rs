//! Which group versions go elsewhere, and where: read from the APIServices in the store, made into a route once per
//! state of one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::{Resource, resource};
use apimachinery::meta::str_at;
use apimachinery::{GroupVersion, Value};
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use store::{Entry, Key, Revision, Store};

use super::availability::is_available;
use super::backend::{Backend, GroupServed};
use super::discovery::Remote;
use super::tls::{self, FrontProxy, Trust};
use crate::conversion;
use crate::webhook::client::authorities;

pub const API_SERVICES: Resource = resource::API_SERVICES;
const HTTPS_PORT: u16 = 443;

/// Where an APIService leads to.
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    /// Why there is no TLS to it, if there is none.
    pub tls: Result<Arc<ClientConfig>, String>,
    /// What was last found out about it.
    pub is_available: bool,
}

#[derive(Clone)]
pub enum Route {
    Service(Arc<Service>),
    InProcess(Arc<dyn Backend>),
}

/// The state of an APIService and what was made of it.
struct Made {
    revision: Revision,
    service: Option<Arc<Service>>,
}

/// A part of this process that serves a group version.
struct Registered {
    served: GroupServed,
    backend: Arc<dyn Backend>,
}

pub struct Aggregator {
    front_proxy: Option<FrontProxy>,
    in_process: RwLock<BTreeMap<GroupVersion, Registered>>,
    /// By the APIService's name.
    made: Mutex<HashMap<Arc<str>, Made>>,
    /// What the others serve, as they said when last asked.
    pub discovered: RwLock<BTreeMap<GroupVersion, Arc<Remote>>>,
    /// How often what discovery shows of that has changed.
    pub changes: AtomicU64,
}

impl Aggregator {
    pub fn new(front_proxy: Option<FrontProxy>) -> Aggregator {
        Aggregator {
            front_proxy,
            in_process: RwLock::default(),
            made: Mutex::default(),
            discovered: RwLock::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Takes in what somebody else serves.
    pub fn discover(&self, version: &GroupVersion, remote: Remote) {
        let mut discovered = self.discovered.write();
        if discovered.get(version).is_none_or(|known| **known != remote) {
            discovered.insert(version.clone(), Arc::new(remote));
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    pub fn register(&self, served: GroupServed, backend: Arc<dyn Backend>) {
        self.in_process.write().insert(served.group_version.clone(), Registered { served, backend });
    }

    /// What a backend within this process serves, if one does.
    pub fn registered(&self, version: &GroupVersion) -> Option<GroupServed> {
        self.in_process.read().get(version).map(|registered| registered.served.clone())
    }

    /// Who answers requests for this path, if it is not this server.
    pub async fn of_path(&self, store: &Store, path: &str) -> Option<Route> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        match (segments.next(), segments.next(), segments.next()) {
            (Some("apis"), Some(group), Some(version)) => {
                self.route(store, &GroupVersion::new(group, version)).await
            }
            _ => None,
        }
    }

    pub async fn route(&self, store: &Store, version: &GroupVersion) -> Option<Route> {
        let is_built_in = |row: &&(&str, &str, i64, i64)| row.0 == version.group && row.1 == version.version;
        if api::apiregistration::LOCAL.iter().any(|row| is_built_in(&row)) {
            return None;
        }
        let name = format!("{}.{}", version.version, version.group);
        let entry = store.get(&Key::cluster("apiservices.apiregistration.k8s.io", name.as_str()))?;
        if let Some(service) = self.service(&entry).await {
            return Some(Route::Service(service));
        }
        self.in_process.read().get(version).map(|registered| Route::InProcess(registered.backend.clone()))
    }

    /// Where the APIService leads to; none when to this server.
    async fn service(&self, entry: &Entry) -> Option<Arc<Service>> {
        if let Some(made) = self.made.lock().get(&entry.key.name)
            && made.revision == entry.revision
        {
            return made.service.clone();
        }
        let object = conversion::decode(&entry.bytes);
        let service = self.make(&object).await.map(Arc::new);
        let made = Made { revision: entry.revision, service: service.clone() };
        self.made.lock().insert(entry.key.name.clone(), made);
        service
    }

    async fn make(&self, object: &Value) -> Option<Service> {
        let spec = &object["spec"];
        let service = spec.get("service").filter(|service| service.is_object())?;
        let trust = if spec["insecureSkipTLSVerify"] == true {
            Ok(Trust::Anybody)
        } else {
            authorities(spec["caBundle"].as_str()).await.map(Trust::Authorities)
        };
        let tls = trust.map(|trust| tls::client_config(trust, self.front_proxy.as_ref()));
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Some(Service {
            namespace: str_at(service, &["namespace"]).to_owned(),
            name: str_at(service, &["name"]).to_owned(),
            port: port.unwrap_or(HTTPS_PORT),
            tls,
            is_available: is_available(object),
        })
    }

    pub fn forget(&self, name: &str, version: &GroupVersion) {
        self.made.lock().remove(name);
        if self.registered(version).is_none() {
            self.discovered.write().remove(version);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}
