//! Asks the kubelets: when somebody wants to know, and then regularly for as long as somebody does.

use std::sync::Arc;
use std::time::Duration;

use ::api::view::core::{Node, Pod};
use client::{Body, CancellationToken, Client, Informer, Informers};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::Method;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::exposition::{self, Scrape};
use crate::storage::{Round, Storage};

/// Between rounds (upstream's `--metric-resolution`).
const RESOLUTION: Duration = Duration::from_secs(15);
/// An answer is made of rounds that are younger than this; else there is a new beginning.
const STALE: Duration = Duration::from_secs(40);
/// Between the first two rounds: longer than a kubelet keeps a reading, and not too long to wait for.
const FIRST_WINDOW: Duration = Duration::from_millis(1500);
/// Without questions for so long, nobody is asked any more. Autoscalers ask every 15 s.
const IDLE: Duration = Duration::from_secs(60);
/// A kubelet answers within this time (upstream's `--kubelet-request-timeout`), or is left out of the round.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Kubelets asked at once.
const SCRAPES_MAX: usize = 64;
/// Of one kubelet: 500 pods with a few containers write a tenth of it.
const SCRAPE_BYTES_MAX: usize = 4 << 20;

pub struct MetricsServer {
    client: Client,
    pub(crate) nodes: Informer<Node>,
    pub(crate) pods: Informer<Pod>,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    storage: Arc<Storage>,
    /// When the last round ended.
    round_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// Whether a task keeps the storage fresh.
    is_kept: bool,
}

impl MetricsServer {
    /// `client` may read the kubelets' metrics through the API server.
    pub fn new(client: Client, informers: &Informers, stop: CancellationToken) -> Arc<Self> {
        let (nodes, pods) = (informers.get::<Node>(), informers.get::<Pod>());
        Arc::new(MetricsServer { client, nodes, pods, state: Mutex::default(), stop })
    }

    /// What is used now: whoever asks first waits for two rounds.
    pub(crate) async fn storage(self: &Arc<Self>) -> Arc<Storage> {
        let mut state = self.state.lock().await;
        if state.round_at.is_none_or(|at| at.elapsed() > STALE) {
            let older = self.round().await;
            tokio::time::sleep(FIRST_WINDOW).await;
            state.storage = Arc::new(Storage::new(older, self.round().await));
            state.round_at = Some(Instant::now());
        }
        state.asked_at = Some(Instant::now());
        if !std::mem::replace(&mut state.is_kept, true) {
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(self.clone().keep()));
        }
        state.storage.clone()
    }

    /// Goes on asking until nobody wants to know any more.
    async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RESOLUTION).await;
            if self.is_forgotten().await {
                return;
            }
            let round = self.round().await;
            let mut state = self.state.lock().await;
            Arc::make_mut(&mut state.storage).push(round);
            state.round_at = Some(Instant::now());
        }
    }

    async fn is_forgotten(&self) -> bool {
        let mut state = self.state.lock().await;
        let forgotten = state.asked_at.is_none_or(|at| at.elapsed() > IDLE);
        state.is_kept = !forgotten;
        forgotten
    }

    async fn round(&self) -> Round {
        let names: Vec<String> = self.nodes.list().iter().map(|node| node.metadata.name.clone()).collect();
        let scrapes = stream::iter(names.into_iter().map(|name| self.scrape_in_time(name)));
        let mut scrapes = scrapes.buffer_unordered(SCRAPES_MAX);
        let mut round = Round::default();
        while let Some((node, scrape)) = scrapes.next().await {
            match scrape {
                Ok(scrape) => round.add(&node, scrape),
                Err(error) => tracing::debug!(node, error, "what the node uses is not known"),
            }
        }
        round
    }

    fn scrape_in_time(&self, node: String) -> BoxFuture<'_, (String, Result<Scrape, String>)> {
        Box::pin(async move {
            let scrape = tokio::time::timeout(SCRAPE_TIMEOUT, self.scrape(&node)).await;
            (node, scrape.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        })
    }

    async fn scrape(&self, node: &str) -> Result<Scrape, String> {
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
        let response = self.client.send(Method::GET, &path, None).await.map_err(|error| error.to_string())?;
        let text = read(response.into_body()).await?;
        Ok(exposition::parse(&String::from_utf8_lossy(&text), Timestamp::now()))
    }
}

async fn read(mut body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > SCRAPE_BYTES_MAX {
            return Err(format!("an answer of more than {SCRAPE_BYTES_MAX} bytes"));
        }
    }
    Ok(bytes)
}
