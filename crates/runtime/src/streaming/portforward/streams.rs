//! Port-forward over SPDY: each forwarded connection is a pair of streams, data and error, that
//! share a `requestID` header. Follows handleHTTPStreams.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{CLOSE_TIMEOUT, forward, log_panic, write_error};
use crate::streaming::{
    Backend,
    spdy::{Incoming, Session, SessionError, Stream},
};

/// How long the second stream of a pair may take (upstream's DefaultStreamCreationTimeout).
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

const STREAM_TYPE: &str = "streamType";
const PORT: &str = "port";
const REQUEST_ID: &str = "requestID";

/// Which half of a pair a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// A stream whose headers are in order.
struct Half {
    kind: Kind,
    port: u16,
    request_id: String,
    stream: Stream,
}

/// A half that waits for the other.
struct Waiting {
    half: Half,
    deadline: Instant,
}

/// Forwards the pairs a client opens, until it leaves.
pub(in crate::streaming) async fn serve(mut session: Session, backend: Arc<dyn Backend>, sandbox_id: String) {
    let mut waiting: HashMap<String, Waiting> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let earliest = waiting.values().map(|waiting| waiting.deadline).min();
        let incoming = tokio::select! {
            incoming = session.accept() => incoming,
            Some(ended) = forwards.join_next() => {
                log_panic(ended);
                continue;
            }
            () = sleep_until(earliest.unwrap_or_else(Instant::now)), if earliest.is_some() => {
                expire(&mut waiting).await;
                continue;
            }
        };
        let Some(incoming) = incoming else { break };
        match accept(incoming).await {
            Ok(Some(half)) => {
                let port = half.port;
                if let Some((data, error)) = pair(&mut waiting, half).await {
                    let (data, error) = (Box::new(data.stream), Box::new(error.stream));
                    forwards.spawn(forward(backend.clone(), sandbox_id.clone(), port, data, error));
                }
            }
            Ok(None) => {}
            Err(SessionError::Closed | SessionError::Refused | SessionError::TooManyStreams) => break,
        }
    }
    drop(forwards);
    if timeout(CLOSE_TIMEOUT, session.close()).await.is_err() {
        tracing::debug!("port-forward client did not close its connection");
    }
}

/// Accepts a stream with proper headers and refuses any other.
async fn accept(incoming: Incoming) -> Result<Option<Half>, SessionError> {
    let Some((kind, port)) = read_headers(&incoming) else {
        incoming.refuse().await?;
        return Ok(None);
    };
    let request_id = request_id(&incoming, kind);
    let stream = incoming.accept().await?;
    Ok(Some(Half { kind, port, request_id, stream }))
}

fn read_headers(incoming: &Incoming) -> Option<(Kind, u16)> {
    let kind = match incoming.headers().get(STREAM_TYPE)? {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    let port = incoming.headers().get(PORT)?.parse().ok().filter(|port| *port > 0)?;
    Some((kind, port))
}

/// The pair a stream belongs to. Clients from before the header open the error stream first and
/// the data stream right after it.
fn request_id(incoming: &Incoming, kind: Kind) -> String {
    match (incoming.headers().get(REQUEST_ID), kind) {
        (Some(id), _) if !id.is_empty() => id.to_owned(),
        (_, Kind::Error) => incoming.id().to_string(),
        (_, Kind::Data) => incoming.id().saturating_sub(2).to_string(),
    }
}

/// Joins `half` with the other one of its pair, or keeps it; gives (data, error).
async fn pair(waiting: &mut HashMap<String, Waiting>, half: Half) -> Option<(Half, Half)> {
    match waiting.remove(&half.request_id) {
        None => {
            let deadline = Instant::now() + STREAM_CREATION_TIMEOUT;
            waiting.insert(half.request_id.clone(), Waiting { half, deadline });
            None
        }
        Some(first) if first.half.kind == half.kind => {
            let message =
                format!("error processing stream for request {}: stream already assigned", half.request_id);
            reject(first.half, &message).await;
            None
        }
        Some(first) => match half.kind {
            Kind::Data => Some((half, first.half)),
            Kind::Error => Some((first.half, half)),
        },
    }
}

async fn expire(waiting: &mut HashMap<String, Waiting>) {
    let now = Instant::now();
    let expired: Vec<_> = waiting.extract_if(|_, waiting| waiting.deadline <= now).collect();
    for (request_id, waiting) in expired {
        reject(waiting.half, &format!("request {request_id} timed out waiting for streams")).await;
    }
}

/// Tells the client, if the half has a place for that, and closes it.
async fn reject(half: Half, message: &str) {
    tracing::debug!(message, "port-forward stream rejected");
    if half.kind == Kind::Error {
        write_error(half.stream, message).await;
    }
}
