//! What all requests share, made once when the server starts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use api::catalogue::{CATALOGUE, Kind};
use apimachinery::{GroupVersion, Status, Value};
use auth::serviceaccount::Issuer;
use auth::{Anonymous, Authenticator, Authorizer};
use client::zpages::Pages;
use store::{Also, CommitError, Entry, Expected, Key, Op, Store};
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregator;
use crate::authentication::Elsewhere;
use crate::config::Config;
use crate::conversion;
use crate::customresource;
use crate::decoded::Decoded;
use crate::discovery;
use crate::encodings::Encodings;
use crate::flowcontrol::FlowControl;
use crate::frames::FrameCache;
use crate::health;
use crate::kind::KindRef;
use crate::metrics::{self, Metrics};
use crate::policy;
use crate::quota::Quotas;
use crate::service_allocation::Allocator;
use crate::webhook;

/// Seconds after which a client may ask again that could not be told the newest.
const BEHIND_RETRY_SECONDS: i32 = 1;

pub struct Core {
    pub config: Config,
    pub store: Store,
    pub authenticator: Authenticator,
    pub elsewhere: Elsewhere,
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
    pub discovery: discovery::Kept,
    pub decoded: Decoded,
    pub encodings: Encodings,
    pub frames: FrameCache,
    pub metrics: Metrics,
    pub health: health::Outcomes,
    /// What the server says of itself.
    pub pages: Pages,
    pub flow_control: FlowControl,
    /// Cancelled when the server stops: watches end, new requests are refused.
    pub draining: CancellationToken,
    /// Tells states of the built-in kinds' OpenAPI documents apart, once anybody has asked.
    pub open_api_hashes: OnceLock<Vec<(GroupVersion, String)>>,
    /// Set by `bootstrap` once it is done.
    bootstrapped: AtomicBool,
}

impl Core {
    pub fn new(mut config: Config, issuer: Issuer, store: Store) -> Arc<Core> {
        let believed = &mut config.authentication;
        let elsewhere = Elsewhere::new(std::mem::take(&mut believed.issuers), believed.webhook.take());
        let anyone = Anonymous { enabled: config.anonymous_auth, paths: Vec::new() };
        let anonymous = believed.anonymous.take().unwrap_or(anyone);
        let request_header = believed.request_header.as_ref().map(|proxies| proxies.headers.clone());
        let admission = admission::Chain::selected(&config.admission);
        let metrics = Metrics::default();
        Arc::new(Core {
            services: Allocator::new(&config.service_cidrs(), config.node_ports.clone(), &store),
            authenticator: Authenticator::new(issuer, config.tokens.clone(), request_header, anonymous),
            elsewhere,
            authorizer: Authorizer::default(),
            admission_metrics: webhook::metrics::Metrics::new(admission.names()),
            admission,
            webhooks: webhook::Source::default(),
            policies: policy::Source::default(),
            webhook_clients: webhook::client::Clients::new(store.clone()),
            quotas: Quotas::default(),
            aggregator: Aggregator::new(config.front_proxy.clone()),
            customresources: customresource::Registry::new(metrics.rules.clone()),
            discovery: discovery::Kept::default(),
            decoded: Decoded::default(),
            encodings: Encodings::default(),
            frames: FrameCache::default(),
            metrics,
            health: health::Outcomes::default(),
            pages: config.features.pages("apiserver", config.flags.clone()),
            flow_control: FlowControl::new(config.requests_in_flight_max, config.clock.clone()),
            draining: CancellationToken::new(),
            open_api_hashes: OnceLock::new(),
            bootstrapped: AtomicBool::new(false),
            config,
            store,
        })
    }

    /// Waits until all shows that was written before, be it through another server.
    pub async fn caught_up(&self) -> Result<(), Status> {
        self.store.caught_up().await.map_err(|behind| {
            tracing::warn!(error = &behind as &dyn std::error::Error, "a request cannot see what is written");
            Status::timeout(format!("the store is behind: {behind}"), BEHIND_RETRY_SECONDS)
        })
    }

    /// Changes an object in the store.
    pub async fn commit(&self, key: &Key, expected: Expected, op: Op) -> Result<Arc<Entry>, CommitError> {
        self.commit_with(key, expected, op, &[]).await
    }

    /// The same, and what must change together with it.
    pub async fn commit_with(
        &self,
        key: &Key,
        expected: Expected,
        op: Op,
        also: &[Also],
    ) -> Result<Arc<Entry>, CommitError> {
        let (operation, started) = (metrics::operation(expected, &op), Instant::now());
        let answer = self.store.commit_with(key, expected, op, also).await;
        self.metrics.commits.answered(key, operation, started.elapsed(), &answer);
        answer
    }

    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    /// Whether the objects every cluster starts with are there.
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// The rows of the catalogue that are served.
    pub fn built_in(&self) -> impl Iterator<Item = &'static Kind> {
        CATALOGUE.iter().filter(|kind| self.config.enablement.serves(&kind.resource))
    }

    /// The kind that a path or a rule names, built in or custom.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<KindRef> {
        let built_in = api::catalogue::by_resource(group, version, plural);
        let built_in = built_in.filter(|kind| self.config.enablement.serves(&kind.resource));
        built_in
            .map(KindRef::BuiltIn)
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
