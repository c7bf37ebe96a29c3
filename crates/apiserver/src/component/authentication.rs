//! Who asks a component: whom a front proxy names, whom a client certificate names, whose token the API server knows, or nobody
//! in particular. Follows `DelegatingAuthenticatorConfig`.

use std::sync::Arc;
use std::time::Duration;

use api::view::core::ConfigMap;
use apimachinery::Status;
use arc_swap::ArcSwapOption;
use auth::{Presented, RequestHeader, UserInfo};
use client::certificate::Replaceable;
use client::{Client, Delta, Informer, Transport};
use http::request::Parts;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::authentication::FrontProxies;
use crate::authentication::webhook::{self, Webhook};
use crate::pipeline::Peer;
use crate::review_client::ReviewClient;
use crate::tls::{self, Authorities, Serving, SharedTls, TlsError};
use crate::upkeep::clusterauthenticationtrust as published;

/// Where a token is reviewed.
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Of users, PEM; none if nobody's.
    pub client_ca: Option<String>,
    /// Who may speak for users.
    pub front_proxies: Option<FrontProxies>,
}

/// Whom a component believes.
pub struct Authentication {
    certificate: Arc<Replaceable>,
    tls: SharedTls,
    request_header: ArcSwapOption<RequestHeader>,
    /// Who knows tokens; without it nobody is asked, and tokens count for nothing.
    webhook: Option<Webhook>,
}

impl Authentication {
    /// `reviewer` is the way to the API server, which answers about tokens; its answers count for `cache_ttl`.
    pub fn new(
        certificate: Arc<Replaceable>,
        trust: &Trust,
        reviewer: Option<Arc<dyn Transport>>,
        cache_ttl: Duration,
    ) -> Result<Authentication, TlsError> {
        let webhook = reviewer.map(|reviewer| {
            let client = ReviewClient::over(reviewer, TOKEN_REVIEWS);
            Webhook::new(webhook::Config { client, version: "v1".to_owned(), cache_ttl })
        });
        let tls = tls::shared(serving(&certificate, trust)?);
        let request_header = ArcSwapOption::new(request_header(trust));
        Ok(Authentication { certificate, tls, request_header, webhook })
    }

    /// What connections use.
    pub fn tls(&self) -> SharedTls {
        self.tls.clone()
    }

    /// Believes whom the API server believes, as it publishes that, where `given` says nothing; until `stop`
    /// (upstream: DynamicCAFromConfigMapController, RequestHeaderAuthRequestController).
    pub async fn follow(&self, client: Client, given: Trust, stop: CancellationToken) {
        let resource = api::resource::CONFIG_MAPS;
        let informer: Informer<ConfigMap> =
            Informer::of_one(client, resource, published::NAMESPACE, published::NAME, stop.clone());
        let mut changes = informer.subscribe();
        while let Some(Some(change)) = stop.run_until_cancelled(changes.recv()).await {
            let found = match &change {
                // What was believed goes on being believed.
                Delta::Deleted(_) => continue,
                Delta::Added(map) | Delta::Updated { new: map, .. } => published::read(&map.data),
            };
            let trust = Trust {
                client_ca: given.client_ca.clone().or(found.client_ca),
                front_proxies: given.front_proxies.clone().or(found.front_proxies),
            };
            if let Err(error) = self.believe(&trust) {
                tracing::warn!(%error, "the published authorities cannot be used");
            }
        }
    }

    /// Believes these and nobody else from now on.
    pub(crate) fn believe(&self, trust: &Trust) -> Result<(), TlsError> {
        let serving = serving(&self.certificate, trust)?;
        self.request_header.store(request_header(trust));
        self.tls.store(Arc::new(serving));
        Ok(())
    }

    /// The identity behind a request, or 401.
    pub(super) async fn user(&self, parts: &Parts, peer: &Peer, now: Timestamp) -> Result<UserInfo, Status> {
        let certificate = match peer {
            Peer::Component(user) => return Ok(user.clone()),
            Peer::Connection { certificate, .. } => certificate.as_ref(),
        };
        let presented = Presented {
            certificate: certificate.map(|certificate| certificate.presented()),
            front_proxy: certificate.and_then(|certificate| certificate.front_proxy()),
            headers: &parts.headers,
        };
        let (user, refused) = presented.holder(self.request_header.load().as_deref());
        if let Some(user) = user {
            return Ok(user);
        }
        if let (Some(webhook), Some(token)) = (&self.webhook, presented.token()) {
            let reviewed = webhook.review(token, &[], &[], now).await;
            let reviewed =
                reviewed.inspect_err(|error| tracing::warn!(error, "a token could not be reviewed"));
            let user = reviewed.ok().flatten().map(|(user, _)| user);
            return user.ok_or_else(Status::unauthorized);
        }
        if refused { Err(Status::unauthorized()) } else { Ok(UserInfo::anonymous()) }
    }
}

fn serving(certificate: &Arc<Replaceable>, trust: &Trust) -> Result<Serving, TlsError> {
    let authorities = Authorities {
        clients: trust.client_ca.as_deref().unwrap_or_default().as_bytes(),
        front_proxies: trust.front_proxies.as_ref().map_or(&[], |proxies| proxies.authority.as_bytes()),
    };
    Serving::showing(certificate.clone(), authorities)
}

fn request_header(trust: &Trust) -> Option<Arc<RequestHeader>> {
    trust.front_proxies.as_ref().map(|proxies| Arc::new(proxies.headers.clone()))
}
