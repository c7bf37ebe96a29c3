//! What a component of its own process serves beside its work.

use std::sync::Arc;

use anyhow::Context as _;
use apimachinery::Value;
use apiserver::component::{Check, Config, Server};
use client::leaderelection::{Elector, Health};
use client::metrics::Source;
use client::zpages::Flags;
use client::{CancellationToken, Client};
use tokio::net::TcpListener;

use crate::cli::{SecureServingArgs, features};
use crate::logging;

/// A component as others see it.
pub struct Shown {
    pub name: &'static str,
    pub default_port: u16,
    pub checks: Vec<Check>,
    pub configz: Value,
    pub figures: Vec<Arc<dyn Source>>,
    pub flags: Flags,
}

/// That a leader renews its lead, or stops working (upstream: `HealthzAdaptor`).
pub fn leader_election(elector: Option<&Elector>) -> Option<Check> {
    let health: Arc<Health> = elector?.health();
    let passes = Box::new(move || health.is_well());
    Some(Check { name: "leaderElection", readiness_only: false, passes })
}

/// Serves until `stop` what the component shows, if flags do not forbid it.
pub async fn serve(args: SecureServingArgs, shown: Shown, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(address) = args.address(shown.default_port) else {
        stop.cancelled().await;
        return Ok(());
    };
    let (trust, reviewer) = (args.trust()?, args.reviewer()?);
    let authentication = Arc::new(args.authentication(shown.name, &trust, reviewer.clone())?);
    let features = features(&args.feature_gates).context("--feature-gates")?;
    let server = Server::new(Config {
        authentication: authentication.clone(),
        authorization: args.authorization()?,
        checks: shown.checks,
        configz: shown.configz,
        figures: shown.figures,
        pages: features.pages(shown.name, shown.flags),
        features,
        set_verbosity: args.profiling.then(logging::setter),
    });
    let listening = client::listen::listen(address).await;
    let listener: TcpListener =
        listening.with_context(|| format!("{} cannot listen on {address}", shown.name))?;
    let published = reviewer.filter(|_| !args.authentication_skip_lookup);
    let follow = async {
        if let Some(transport) = published {
            authentication.follow(Client::new(transport, shown.name), trust, stop.clone()).await;
        }
    };
    tokio::join!(server.serve(listener, stop.clone()), follow);
    Ok(())
}
