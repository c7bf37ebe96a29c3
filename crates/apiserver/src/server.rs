//! The API server as its users see it.

use std::sync::Arc;

use auth::UserInfo;
use auth::serviceaccount::Issuer;
use client::Transport;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bootstrap::{self, BootstrapError};
use crate::config::Config;
use crate::core::Core;
use crate::in_process::InProcess;
use crate::tls::SharedTls;
use crate::{customresource, event_ttl, follow, listener};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("read the roles in the store")]
    Follow(#[from] store::Gone),
    #[error("make the objects every cluster starts with")]
    Bootstrap(#[from] BootstrapError),
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
        tokio::spawn(customresource::run(core.clone(), stop.clone()));
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
}
