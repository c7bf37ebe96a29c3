//! What a component that is not the API server serves of itself: how it is, its figures and its configuration, over HTTPS, to
//! whom the API server knows and lets. Follows the handlers that kube-scheduler and kube-controller-manager install, behind
//! their delegated authentication and authorization.

mod authentication;
mod authorization;

use std::sync::Arc;

use apimachinery::{Status, Value};
use auth::{Attributes, UserInfo};
use client::debug::SetVerbosity;
use client::zpages::Pages;
use http::request::Parts;
use http::{Method, Request, Response};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use authentication::{Authentication, Trust};
pub use authorization::{AlwaysAllowed, Authorization, PathError};

use crate::body::Body;
use crate::debug;
use crate::features::Features;
use crate::health::{Asked, Outcomes};
use crate::listener::{self, Answers};
use crate::metrics::process;
use crate::negotiation::{Formats, Target};
use crate::nonresource::{METRICS_CONTENT_TYPE, page_not_found, text, uncached};
use crate::pipeline::{self, Peer};
use crate::query::Query;

/// Something that must be well for the component to be.
pub struct Check {
    pub name: &'static str,
    /// Whether the component may be healthy while this fails.
    pub readiness_only: bool,
    pub passes: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What a component has to tell.
pub struct Config {
    pub authentication: Arc<Authentication>,
    pub authorization: Authorization,
    pub checks: Vec<Check>,
    /// What `/configz` shows.
    pub configz: Value,
    pub figures: Vec<Arc<dyn client::metrics::Source>>,
    /// What it says of itself.
    pub pages: Pages,
    pub features: Features,
    /// Sets how much is logged; none where nothing is told of the program (`--profiling`).
    pub set_verbosity: Option<SetVerbosity>,
}

/// What there is besides the pages.
const PATHS: [&str; 6] = ["/configz", "/healthz", "/livez", "/metrics", "/metrics/slis", "/readyz"];

/// A component's own server.
pub struct Server {
    config: Config,
    outcomes: Outcomes,
    draining: CancellationToken,
}

impl Server {
    pub fn new(config: Config) -> Arc<Server> {
        Arc::new(Server { config, outcomes: Outcomes::default(), draining: CancellationToken::new() })
    }

    /// Serves until `stop`, under the TLS that the authentication keeps up to date.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let tls = self.config.authentication.tls();
        listener::serve(self, listener, tls, stop).await;
    }

    async fn respond(&self, parts: &Parts, body: Body, peer: &Peer) -> Result<Response<Body>, Status> {
        let (now, path) = (Timestamp::now(), parts.uri.path());
        let user: UserInfo = self.config.authentication.user(parts, peer, now).await?;
        // No path of a component is that of a resource.
        let verb = parts.method.as_str().to_ascii_lowercase();
        self.config
            .authorization
            .check(&Attributes { verb: &verb, path, ..Attributes::of(&user) }, now)
            .await?;
        if !matches!(parts.method, Method::GET | Method::HEAD) && !debug::takes(path, &parts.method) {
            return Err(Status::no_such_method());
        }
        let pages = &self.config.pages;
        if let Some(page) = pages.at(path) {
            return Ok(uncached(pages.answer(page, PATHS, &parts.headers, now)));
        }
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        match segments.as_slice() {
            [endpoint @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
                let query = Query::parse(parts.uri.query().unwrap_or_default());
                self.health(&Asked::new(endpoint, rest, &query), endpoint)
            }
            ["configz"] => text("application/json", self.config.configz.to_string()),
            ["metrics"] => text(METRICS_CONTENT_TYPE, self.metrics(now)),
            ["metrics", "slis"] => text(METRICS_CONTENT_TYPE, self.outcomes.render(now)),
            ["debug", ..] => match &self.config.set_verbosity {
                Some(set) => debug::serve_profiling(set, &parts.method, path, body).await,
                None => page_not_found(),
            },
            _ => page_not_found(),
        }
    }

    /// Liveness asks for nothing but an answer, as upstream's components do.
    fn health(&self, asked: &Asked<'_>, endpoint: &str) -> Result<Response<Body>, Status> {
        let applying = self.config.checks.iter().filter(|check| match endpoint {
            "readyz" => true,
            "healthz" => !check.readiness_only,
            _ => false,
        });
        let mut outcomes: Vec<(&'static str, bool)> =
            applying.map(|check| (check.name, (check.passes)())).collect();
        if endpoint == "readyz" {
            outcomes.push(("shutdown", !self.draining.is_cancelled()));
        }
        if outcomes.is_empty() {
            outcomes.push(("ping", true));
        }
        let meant = outcomes.into_iter().filter(|(name, _)| asked.means(name));
        let made = meant.map(|(name, passes)| (name, (!asked.excludes(name)).then_some(passes)));
        asked.answer(&made.collect::<Vec<_>>(), &self.outcomes)
    }

    fn metrics(&self, now: Timestamp) -> String {
        let mut page = self.config.features.render();
        process::write(&mut page, now).expect("a String takes everything");
        self.config.figures.iter().for_each(|figures| figures.write(&mut page));
        page
    }
}

impl Answers for Server {
    async fn answer(self: Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let answered = self.respond(&parts, body, &peer).await;
        answered.unwrap_or_else(|status| {
            let target = Target::negotiate(&parts.headers, Formats::default());
            pipeline::refused(&status, target.unwrap_or_default())
        })
    }

    fn handshake_failed(&self) {
        tracing::debug!("a client and this component do not agree on TLS");
    }

    fn stopping(&self) {
        self.draining.cancel();
    }
}
