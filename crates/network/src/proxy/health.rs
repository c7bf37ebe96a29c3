//! Who asks whether the proxy works: load balancers ask each Service's `healthCheckNodePort`
//! whether this node has endpoints (upstream's `ServiceHealthServer`), others ask `/healthz` and
//! `/livez` about the proxy itself (`ProxyHealthServer`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::view::core::Node;
use apimachinery::json;
use apimachinery::meta::NamespacedName;
use client::CancellationToken;
use client::zpages::Pages;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::plan::HealthCheck;
use crate::http::{self, Answer, Handler};

/// How long a change may wait to be programmed before the proxy calls itself unhealthy; upstream's
/// is two of its sync periods of 30 s.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What there is where figures are.
const METRICS_PATHS: [&str; 3] = [HEALTHZ, METRICS, PROXY_MODE];
const HEALTHZ: &str = "/healthz";
const METRICS: &str = "/metrics";
const PROXY_MODE: &str = "/proxyMode";

/// Put on a node by the cluster autoscaler before it deletes it.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether the proxy keeps up.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    updated: Option<Timestamp>,
    /// Since when a change waits.
    queued: Option<Timestamp>,
    /// The node stays.
    is_node_eligible: bool,
}

impl Health {
    pub fn queued(&self, now: Timestamp) {
        self.state.lock().queued.get_or_insert(now);
    }

    pub fn updated(&self, now: Timestamp) {
        let mut state = self.state.lock();
        (state.updated, state.queued) = (Some(now), None);
    }

    pub fn node(&self, node: Option<&Node>) {
        let stays = |node: &Node| {
            !node.metadata.is_being_deleted()
                && !node.spec.taints.iter().any(|taint| taint.key == TAINT_TO_BE_DELETED)
        };
        self.state.lock().is_node_eligible = node.is_some_and(stays);
    }

    pub fn is_healthy(&self, now: Timestamp) -> bool {
        let waited = |since: Timestamp| now.duration_since(since).unsigned_abs() < TIMEOUT;
        self.state.lock().queued.is_none_or(waited)
    }

    /// `/livez`, and, where the node counts too, `/healthz`.
    fn answer(&self, with_node: bool, now: Timestamp) -> Answer {
        let healthy = self.is_healthy(now);
        let state = self.state.lock();
        let ok = healthy && (!with_node || state.is_node_eligible);
        let updated = state.updated.map_or("0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
        let family = json!({"lastUpdated": updated, "healthy": healthy});
        let last_updated = if ok { now.to_string() } else { updated };
        let mut body =
            json!({"lastUpdated": last_updated, "currentTime": now.to_string(), "healthy": healthy});
        if with_node {
            body["nodeEligible"] = state.is_node_eligible.into();
        }
        if state.updated.is_some() {
            body["status"] = json!({"IPv4": family, "IPv6": family});
        }
        Answer::json(if ok { 200 } else { 503 }, body.to_string())
    }
}

/// Answers `/healthz` and `/livez`.
pub fn healthz_handler(health: Arc<Health>, metrics: Arc<Metrics>) -> Handler {
    Arc::new(move |path, _| {
        let (with_node, counter) = match path {
            HEALTHZ => (true, &metrics.healthz),
            "/livez" => (false, &metrics.livez),
            _ => return Answer::not_found().into(),
        };
        let answer = health.answer(with_node, Timestamp::now());
        counter.add(&format!("code=\"{}\"", answer.status), 1.0);
        answer.into()
    })
}

/// Answers `/metrics`, and what else upstream serves beside it.
pub fn metrics_handler(metrics: Arc<Metrics>, pages: Pages) -> Handler {
    Arc::new(move |path, headers| {
        if let Some(page) = pages.at(path) {
            return pages.answer(page, METRICS_PATHS, headers, Timestamp::now());
        }
        let answer = match path {
            METRICS => Answer::text(200, metrics.text()),
            HEALTHZ => Answer::text(200, "ok".into()),
            PROXY_MODE => Answer::text(200, "nftables".into()),
            _ => Answer::not_found(),
        };
        answer.into()
    })
}

/// The open health check ports.
#[derive(Debug)]
pub struct HealthPorts {
    health: Arc<Health>,
    open: BTreeMap<NamespacedName, Open>,
}

#[derive(Debug)]
struct Open {
    port: u16,
    local_endpoints: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl HealthPorts {
    pub fn new(health: Arc<Health>) -> HealthPorts {
        HealthPorts { health, open: BTreeMap::new() }
    }

    /// Closes, opens and updates; a port that cannot be opened is tried again next time.
    pub async fn sync(&mut self, checks: &BTreeMap<NamespacedName, HealthCheck>) {
        self.open.retain(|name, open| checks.get(name).is_some_and(|check| check.port == open.port));
        for (name, check) in checks {
            if let Some(open) = self.open.get(name) {
                open.local_endpoints.store(check.local_endpoints, Ordering::Relaxed);
                continue;
            }
            match http::listen_everywhere(check.port).await {
                Ok(listener) => {
                    self.open.insert(name.clone(), self.serve(name, *check, listener));
                }
                Err(error) => {
                    tracing::warn!(service = %name, port = check.port, %error, "health check port cannot be opened");
                }
            }
        }
    }

    fn serve(&self, name: &NamespacedName, check: HealthCheck, listener: TcpListener) -> Open {
        let local_endpoints = Arc::new(AtomicUsize::new(check.local_endpoints));
        let stop = CancellationToken::new();
        let (name, count, health) = (name.clone(), local_endpoints.clone(), self.health.clone());
        let handler: Handler = Arc::new(move |_, _| {
            service_answer(&name, count.load(Ordering::Relaxed), health.is_healthy(Timestamp::now())).into()
        });
        tokio::spawn(http::serve(listener, handler, stop.clone()));
        Open { port: check.port, local_endpoints, stop }
    }
}

fn service_answer(name: &NamespacedName, local_endpoints: usize, healthy: bool) -> Answer {
    let status = if local_endpoints > 0 && healthy { 200 } else { 503 };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        name.namespace, name.name
    );
    let mut answer = Answer::json(status, body);
    answer.headers.push(("x-load-balancing-endpoint-weight", local_endpoints.to_string()));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_read_upstreams_answer() {
        let answer = service_answer(&NamespacedName::new("default", "web"), 2, true);
        let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
        assert!(answer.headers.contains(&("x-load-balancing-endpoint-weight", "2".into())));
        assert_eq!(service_answer(&NamespacedName::new("default", "web"), 0, true).status, 503);
        assert_eq!(service_answer(&NamespacedName::new("default", "web"), 2, false).status, 503);
    }

    #[test]
    fn the_proxy_says_of_itself_what_it_is() {
        let flags = Arc::new([("name".to_owned(), "cox".to_owned())].into());
        let handler = metrics_handler(Arc::default(), Pages::new("kube-proxy", flags));
        let ask = |path: &str| {
            let answer = handler(path, &::http::HeaderMap::new());
            (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned())
        };
        let (code, state) = ask("/statusz");
        assert!(code == 200 && state.starts_with("\nkube-proxy statusz\n"), "{code} {state}");
        assert!(state.ends_with("\nPaths: /flagz /healthz /metrics /proxyMode\n"), "{state}");
        assert!(ask("/flagz").1.ends_with("\nname: cox\n"));
        assert_eq!(ask("/proxyMode"), (200, "nftables".to_owned()));
        assert_eq!(ask("/flagz/").0, 404);
    }

    #[test]
    fn a_change_that_waits_too_long_makes_the_proxy_unhealthy() {
        let health = Health::default();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let later = |seconds| start + jiff::SignedDuration::from_secs(seconds);
        health.node(Some(&Node::default()));
        health.queued(start);
        health.queued(later(30));
        assert!(health.is_healthy(later(59)) && !health.is_healthy(later(60)));
        assert_eq!(health.answer(true, later(60)).status, 503);
        health.updated(later(61));
        assert_eq!(health.answer(true, later(300)).status, 200);
        health.node(None);
        assert_eq!((health.answer(true, start).status, health.answer(false, start).status), (503, 200));
    }
}
