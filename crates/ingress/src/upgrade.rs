//! Connections that go on with another protocol, such as WebSocket: once both sides have agreed, bytes are passed on.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Joins the two sides until one ends.
pub async fn join(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "a connection could not be upgraded");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "an upgraded connection ended");
    }
}
