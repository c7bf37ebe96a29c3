//! What all requests share, made once when the server starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::catalogue::Kind;
use apimachinery::Value;
use auth::serviceaccount::Issuer;
use auth::{Authenticator, Authorizer};
use store::{Key, Store};
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregator;
use crate::config::Config;
use crate::conversion;
use crate::customresource;
use crate::decoded::Decoded;
use crate::flowcontrol::FlowControl;
use crate::frames::FrameCache;
use crate::kind::KindRef;
use crate::metrics::Metrics;
use crate::policy;
use crate::quota::Quotas;
use crate::service_allocation::Allocator;
use crate::webhook;

pub struct Core {
    pub config: Config,
    pub store: Store,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub admission: admission::Chain,
    pub admission_metrics: webhook::metrics::Metrics,
    pub webhooks: webhook::Source,
    pub policies: policy::Source,
    pub webhook_clients: webhook::client::Clients,
    pub quotas: Quotas,
    pub services: Allocator,
    pub aggregator: Aggregator,
    pub customresources: customresource::Registry,
    pub decoded: Decoded,
    pub frames: FrameCache,
    pub metrics: Metrics,
    pub flow_control: FlowControl,
    /// Cancelled when the server stops: watches end, new requests are refused.
    pub draining: CancellationToken,
    /// Set by `bootstrap` once it is done.
    bootstrapped: AtomicBool,
}

impl Core {
    pub fn new(config: Config, issuer: Issuer, store: Store) -> Arc<Core> {
        Arc::new(Core {
            services: Allocator::new(&config.service_cidrs(), config.node_ports.clone(), &store),
            authenticator: Authenticator::new(issuer, config.tokens.clone(), config.anonymous_auth),
            authorizer: Authorizer::default(),
            admission: admission::Chain::selected(&config.admission),
            admission_metrics: webhook::metrics::Metrics::default(),
            webhooks: webhook::Source::default(),
            policies: policy::Source::default(),
            webhook_clients: webhook::client::Clients::new(store.clone()),
            quotas: Quotas::default(),
            aggregator: Aggregator::new(config.front_proxy.clone()),
            customresources: customresource::Registry::default(),
            decoded: Decoded::default(),
            frames: FrameCache::default(),
            metrics: Metrics::default(),
            flow_control: FlowControl::new(config.requests_in_flight_max, config.clock.clone()),
            draining: CancellationToken::new(),
            bootstrapped: AtomicBool::new(false),
            config,
            store,
        })
    }

    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    /// Whether the objects every cluster starts with are there.
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// The kind that a path or a rule names, built in or custom.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<KindRef> {
        let built_in = api::catalogue::by_resource(group, version, plural).map(KindRef::BuiltIn);
        built_in
            .or_else(|| self.customresources.kind(&self.store, group, version, plural).map(KindRef::Custom))
    }

    /// An object straight from the store, in the version the store keeps.
    pub fn object(&self, resource: api::Resource, namespace: &str, name: &str) -> Option<Value> {
        let kind = api::catalogue::by_resource(resource.group, resource.version, resource.plural)?;
        self.object_of(kind, namespace, name)
    }

    pub fn object_of(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value> {
        let entry = self.store.get(&Key::new(kind.storage, namespace, name))?;
        Some(conversion::decode(&entry.bytes))
    }
}
