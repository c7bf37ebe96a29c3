//! Unix sockets on which drivers answer.

use std::io;
use std::path::Path;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

/// A connection to whoever listens at `socket` now.
pub async fn connect(socket: &Path) -> Result<Channel, tonic::Status> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // Required by the type, meaningless on a socket.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|error| {
        tonic::Status::unavailable(format!("plugin does not answer on {}: {error}", socket.display()))
    })
}

/// Listens at `socket`, in the place of one who did so before.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}
