//! Small HTTP servers for health checks and metrics: each answers GET by path.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::CancellationToken;
pub use client::listen::{listen, listen_everywhere};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Open connections of one server; more wait to be accepted. Load balancers and scrapers hold few.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Pause after a failed accept, such as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What answers a path, for a request with these headers.
pub type Handler = Arc<dyn Fn(&str, &HeaderMap) -> Response<Bytes> + Send + Sync>;

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    /// JSON that no browser may take for anything else.
    pub fn json(status: u16, body: String) -> Answer {
        let headers = [("content-type", "application/json"), ("x-content-type-options", "nosniff")];
        Answer { status, headers: headers.map(|(name, value)| (name, value.to_owned())).into(), body }
    }

    pub fn text(status: u16, body: String) -> Answer {
        let headers = vec![("content-type", "text/plain; version=0.0.4; charset=utf-8".to_owned())];
        Answer { status, headers, body }
    }

    pub fn not_found() -> Answer {
        Answer::text(404, "404 page not found\n".into())
    }
}

impl From<Answer> for Response<Bytes> {
    fn from(answer: Answer) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(answer.body));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in answer.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Serves until `stop`, connections included.
pub async fn serve(listener: TcpListener, handler: Handler, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "accept HTTP connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (handler, stop) = (handler.clone(), stop.clone());
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let response = respond(&handler, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_PATIENCE)
                    .serve_connection(TokioIo::new(stream), answer);
                if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "HTTP connection ended");
                }
                drop(permit);
            });
        }
    };
    stop.run_until_cancelled(accept).await;
}

fn respond(handler: &Handler, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    handler(request.uri().path(), request.headers()).map(Full::new)
}
