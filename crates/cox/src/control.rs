//! The socket over which other `cox` processes of this machine talk to the running one: what the CRI and the
//! Kubernetes API have no word for. Only root can open it.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use client::CancellationToken;
use futures_util::TryStreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::Runtime;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

const IMAGES_PATH: &str = "/v1/images";
/// The query with which the images of an archive are kept whatever else the disk is needed for.
const PIN: &str = "pin";
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub fn socket(layout: &cluster::Layout) -> PathBuf {
    layout.run().join("control.sock")
}

/// Opens the socket: from now on others can connect, and are answered once `serve` runs.
pub fn listen(layout: &cluster::Layout) -> anyhow::Result<UnixListener> {
    let socket = socket(layout);
    cluster::files::remove(&socket)?;
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until `stop`.
pub async fn serve(
    listener: UnixListener,
    runtime: Option<Arc<Runtime>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Descriptors have run out: no reason to end the cluster.
                tracing::warn!(%error, "control connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let runtime = runtime.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let runtime = runtime.clone();
                async move { Ok::<_, Infallible>(answer(request, runtime).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
    }
    Ok(())
}

async fn answer(request: Request<Incoming>, runtime: Option<Arc<Runtime>>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let result = match (&head.method, head.uri.path(), runtime) {
        (&Method::POST, IMAGES_PATH, Some(runtime)) => {
            import(body, runtime, head.uri.query() == Some(PIN)).await
        }
        (method, path, _) => {
            read_to_end(body).await;
            Err(match (method, path) {
                (&Method::POST, IMAGES_PATH) => {
                    "the container runtime is not the built-in one: import with its own tool".to_owned()
                }
                _ => format!("{path} is not known"),
            })
        }
    };
    let (code, text) = match result {
        Ok(text) => (StatusCode::OK, text),
        Err(why) => (StatusCode::BAD_REQUEST, why),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
}

/// Reads a body for nothing: who is still sending it when it is answered hears that the connection broke, and no answer.
async fn read_to_end(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// Takes an archive as the body; answers with the names of its images, a line each.
async fn import(body: Incoming, runtime: Arc<Runtime>, pin: bool) -> Result<String, String> {
    let chunks = TryStreamExt::map_err(BodyStream::new(body), std::io::Error::other)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
    let reader = StreamReader::new(Box::pin(chunks));
    let import = tokio::task::spawn_blocking(move || {
        let mut archive = SyncIoBridge::new(reader);
        let images = runtime::images::import(runtime.images(), &mut archive);
        // To the body's end, for the same reason as in `read_to_end`: archives are padded, and may be refused half read.
        drop(std::io::copy(&mut archive, &mut std::io::sink()));
        let images = images?;
        for image in images.iter().filter(|_| pin) {
            runtime.images().set_pinned(&image.id, true)?;
        }
        Ok::<_, runtime::images::Error>(images)
    });
    let images = import.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok(images
        .iter()
        .map(|image| image.name.clone().unwrap_or_else(|| image.id.clone()))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Sends an archive to the running cluster; returns the names of its images, which are kept for good if `pin` says so.
pub async fn send_archive(
    socket: &Path,
    pin: bool,
    archive: impl tokio::io::AsyncRead + Send + 'static,
) -> anyhow::Result<Vec<String>> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("no cluster answers on {}; start it with `cox up`", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = StreamBody::new(ReaderStream::new(archive).map_ok(Frame::data));
    let path = if pin { format!("{IMAGES_PATH}?{PIN}") } else { IMAGES_PATH.to_owned() };
    let request = Request::post(path).header(http::header::HOST, "cox").body(BodyExt::boxed_unsync(body))?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let text = String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned();
    if code != StatusCode::OK {
        bail!("{text}");
    }
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than what waits in a socket's buffers.
    const BODY_BYTES: usize = 1 << 20;
    const ATTEMPTS: usize = 50;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_sends_much_for_nothing_hears_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, None, stop.clone()));
        // Whether the answer or the broken connection is heard first is a matter of chance.
        for _ in 0..ATTEMPTS {
            let refused = send_archive(&socket, false, std::io::Cursor::new(vec![0; BODY_BYTES])).await;
            let why = format!("{:#}", refused.expect_err("there is no runtime"));
            assert!(why.contains("not the built-in one"), "{why}");
        }
        stop.cancel();
        served.await.expect("no panic").expect("served");
    }
}
