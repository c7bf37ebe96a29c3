//! The kubelet's own certificates: asked of the cluster by CertificateSigningRequests, renewed before they end and put to
//! use without a restart (follows client-go's `certificate.Manager` as `pkg/kubelet/certificate` uses it).

mod file;
mod lifetime;
mod request;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use client::certificate::{CertificateError, Replaceable};
use client::transport::Https;
use jiff::Timestamp;

use crate::config::Config;
use crate::metrics::{CertificateMetrics, Metrics};
use lifetime::Lifetime;
use request::Wanted;
pub use request::{Error as RequestError, Purpose};

/// A certificate, with those above it, and its key; both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// Where the kubelet shows its certificates, so that they can be replaced.
#[derive(Clone)]
pub struct Shown {
    /// To the clients of its own API.
    pub serving: Arc<Replaceable>,
    /// To the API server; none where it is known there without one.
    pub client: Option<ShownClient>,
}

#[derive(Clone)]
pub struct ShownClient {
    pub https: Arc<Https>,
    /// What it shows at the start.
    pub first: Identity,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Request(#[from] request::Error),
    #[error("it cannot be kept in {0}: {1}")]
    Keep(PathBuf, std::io::Error),
    #[error(transparent)]
    Show(#[from] CertificateError),
}

/// A first client certificate, for a node that is known by other means yet.
pub async fn issue_client(client: &Client, node_name: &str) -> Result<Identity, RequestError> {
    request::issue(client, &Wanted::client(node_name)).await
}

/// The client certificate that was issued last, if it holds longer than the one given.
pub fn latest_client(root_dir: &Path, given: Identity, now: Timestamp) -> Identity {
    let end = |identity: &Identity| {
        lifetime::of(identity).filter(|life| life.holds(now)).map(|life| life.not_after())
    };
    match file::read(&file(root_dir, Purpose::Client)) {
        Some(kept) if end(&kept) > end(&given) => kept,
        _ => given,
    }
}

fn file(root_dir: &Path, purpose: Purpose) -> PathBuf {
    let name = match purpose {
        Purpose::Client => "kubelet-client-current.pem",
        Purpose::Serving => "kubelet-server-current.pem",
    };
    root_dir.join("pki").join(name)
}

/// Those that the configuration wants to be rotated.
pub fn managers(config: &Config, client: &Client, metrics: &Metrics) -> Vec<Manager> {
    let manager = |purpose, show: Show, first: Option<Identity>| Manager {
        client: client.clone(),
        wanted: Wanted::of(purpose, config),
        path: file(&config.root_dir, purpose),
        show,
        current: first,
        metrics: metrics.certificate(purpose),
    };
    let mut managers = Vec::new();
    if config.kubelet.server_tls_bootstrap {
        let serving = config.shown.serving.clone();
        let show = move |identity: &Identity| {
            serving.replace(identity.certificate.as_bytes(), identity.key.as_bytes())
        };
        managers.push(manager(Purpose::Serving, Box::new(show), None));
    }
    match (config.kubelet.rotate_certificates, config.shown.client.clone()) {
        (true, Some(ShownClient { https, first })) => {
            let show = move |identity: &Identity| {
                https.show(identity.certificate.as_bytes(), identity.key.as_bytes())
            };
            managers.push(manager(Purpose::Client, Box::new(show), Some(first)));
        }
        (true, None) => {
            tracing::info!("the kubelet has no client certificate to rotate: it is part of the server")
        }
        (false, _) => {}
    }
    managers
}

type Show = Box<dyn Fn(&Identity) -> Result<(), CertificateError> + Send + Sync>;

/// Keeps one certificate good.
pub struct Manager {
    client: Client,
    wanted: Wanted,
    /// Where it is kept.
    path: PathBuf,
    show: Show,
    current: Option<Identity>,
    metrics: Arc<CertificateMetrics>,
}

/// Timers stand still while a machine sleeps and know nothing of a clock that is set, so the clock is read this often.
const CLOCK_CHECK: Duration = Duration::from_secs(3600);
/// However short certificates hold: they begin a few minutes before they are signed, so that a part of their life may
/// be over by then.
const RENEW_PERIOD_MIN: Duration = Duration::from_secs(30);
/// The first and longest pause after a request that failed; they double.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(32);

impl Manager {
    /// Until it is dropped.
    pub async fn run(mut self) {
        self.take_kept(Timestamp::now());
        self.tell_shown();
        let mut retry = RETRY_MIN;
        loop {
            self.wait_until_due().await;
            match self.renew().await {
                Ok(()) => {
                    retry = RETRY_MIN;
                    tokio::time::sleep(RENEW_PERIOD_MIN).await;
                }
                Err(error) => {
                    self.metrics.renewal_failed();
                    let certificate = self.wanted.purpose.as_str();
                    tracing::warn!(certificate, %error, "the kubelet's certificate was not renewed, will retry");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// One that was issued before, if it is still good for what is wanted now.
    fn take_kept(&mut self, now: Timestamp) {
        let Some(kept) = file::read(&self.path) else { return };
        let good = lifetime::of(&kept).is_some_and(|life| life.holds(now)) && self.wanted.is_named_by(&kept);
        if good && (self.show)(&kept).is_ok() {
            self.current = Some(kept);
        }
    }

    async fn wait_until_due(&self) {
        let due = self.lifetime().map(|life| life.renew_at());
        while let Some(left) =
            due.map(|due| due.duration_since(Timestamp::now())).filter(|left| left.is_positive())
        {
            tokio::time::sleep(CLOCK_CHECK.min(left.unsigned_abs())).await;
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
        let identity = request::issue(&self.client, &self.wanted).await?;
        file::write(&self.path, &identity).map_err(|error| Error::Keep(self.path.clone(), error))?;
        (self.show)(&identity)?;
        let again = lifetime::of(&identity).map(|life| life.renew_at().to_string());
        tracing::info!(
            certificate = self.wanted.purpose.as_str(),
            again,
            "the kubelet's certificate is renewed"
        );
        if let Some(before) = self.lifetime() {
            self.metrics.rotated(before.not_before(), Timestamp::now());
        }
        self.current = Some(identity);
        self.tell_shown();
        Ok(())
    }

    fn lifetime(&self) -> Option<Lifetime> {
        self.current.as_ref().and_then(lifetime::of)
    }

    fn tell_shown(&self) {
        self.metrics.shown(self.lifetime().map(|life| life.not_after()));
    }
}
