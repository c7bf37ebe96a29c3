//! The sockets on which programs of the node speak gRPC with the kubelet.

use std::io;
use std::time::Duration;

use runtime::grpc_socket;
use tokio::net::UnixListener;
use tonic::transport::server::Router;

/// Between attempts to listen.
const RETRY: Duration = Duration::from_secs(2);

/// Serves for ever, on a new socket and by a new service after each failure; `complaint` says in the log what is missing meanwhile.
pub async fn serve(
    complaint: &str,
    listen: impl Fn() -> io::Result<UnixListener>,
    service: impl Fn() -> Router,
) {
    loop {
        let served = async {
            service().serve_with_incoming(grpc_socket::incoming(listen()?)).await.map_err(io::Error::other)
        };
        if let Err(error) = served.await {
            tracing::warn!(%error, "{complaint}, will retry");
        }
        tokio::time::sleep(RETRY).await;
    }
}
