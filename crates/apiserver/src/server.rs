//! The API server as its users see it.

use std::sync::Arc;

use auth::UserInfo;
use auth::serviceaccount::Issuer;
use client::Transport;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::aggregation::{self, Backend, GroupServed};
use crate::bootstrap::{self, BootstrapError};
use crate::config::Config;
use crate::core::Core;
use crate::in_process::InProcess;
use crate::tls::SharedTls;
use crate::upkeep::UpkeepError;
use crate::{customresource, event_ttl, flowcontrol, follow, listener, upkeep};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("read the roles and levels in the store")]
    Follow(#[from] store::Gone),
    #[error("make the objects every cluster starts with")]
    Bootstrap(#[from] BootstrapError),
    #[error("make the objects that the server answers for")]
    Upkeep(#[from] UpkeepError),
}

/// A started API server. It answers in-process requests at once, others while [`ApiServer::serve`] runs. Dropping it
/// ends its background work.
pub struct ApiServer {
    core: Arc<Core>,
    _background: DropGuard,
}

impl ApiServer {
    /// Makes a server over an open store, with the objects every cluster starts with. `issuer` signs and checks
    /// service account tokens.
    pub async fn start(config: Config, issuer: Issuer, store: Store) -> Result<ApiServer, StartError> {
        let core = Core::new(config, issuer, store);
        let stop = CancellationToken::new();
        let background = stop.clone().drop_guard();
        follow::start(&core, &stop)?;
        bootstrap::run(&core).await?;
        upkeep::start(&core, &stop).await?;
        flowcontrol::start(&core, &stop)?;
        core.set_bootstrapped();
        tokio::spawn(customresource::run(core.clone(), stop.clone()));
        tokio::spawn(aggregation::run(core.clone(), stop.clone()));
        tokio::spawn(event_ttl::run(core.clone(), stop));
        Ok(ApiServer { core, _background: background })
    }

    /// Serves HTTPS until `stop`, then ends watches and lets other requests finish.
    pub async fn serve(&self, listener: TcpListener, tls: SharedTls, stop: CancellationToken) {
        listener::serve(self.core.clone(), listener, tls, stop).await;
    }

    /// A component's way to the server within this process, under the component's own identity.
    pub fn in_process(&self, user: UserInfo) -> Arc<dyn Transport> {
        Arc::new(InProcess::new(self.core.clone(), user))
    }

    /// Lets `backend` answer the requests for a group version of its own, and makes the APIService that says so. An
    /// APIService of that name which leads to a Service has precedence: whoever installs an extension server gets it.
    pub async fn serve_group(
        &self,
        served: GroupServed,
        backend: Arc<dyn Backend>,
    ) -> Result<(), UpkeepError> {
        self.core.aggregator.register(served.clone(), backend);
        upkeep::api_service(&self.core, &served.group_version).await?;
        aggregation::discover_in_process(&self.core, &served).await;
        Ok(())
    }
}
