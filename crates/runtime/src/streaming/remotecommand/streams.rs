//! Remote command over SPDY: one stream per kind, told apart by the `streamType` header.

use std::time::Duration;

use tokio::time::{error::Elapsed, timeout};

use super::{Connected, Options, Transport, resize, status::Format};
use crate::streaming::{
    Streams,
    spdy::{Session, SessionError, Stream},
};

const V1: &str = "channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// Protocol versions served, newest first.
pub(in crate::streaming) const PROTOCOLS: &[&str] = &[V4, V3, V2, V1];

/// How long a client may take to open its streams (upstream's DefaultStreamCreationTimeout).
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a client's streams were not completed.
#[derive(Debug, thiserror::Error)]
pub(in crate::streaming) enum ConnectError {
    #[error("timed out waiting for client to create streams")]
    Timeout(#[from] Elapsed),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// The streams received so far.
#[derive(Default)]
struct Received {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Waits until the client has opened every stream it was asked for. `protocol` is what was agreed
/// on; a client that offered none speaks v1.
pub(in crate::streaming) async fn connect(
    mut session: Session,
    protocol: Option<&str>,
    options: Options,
) -> Result<Connected, ConnectError> {
    let protocol = protocol.unwrap_or(V1);
    let resizes = options.tty && matches!(protocol, V3 | V4);
    let mut received = Received::default();
    timeout(STREAM_CREATION_TIMEOUT, receive(&mut session, &mut received, options, resizes)).await??;
    let Received { error, stdin, stdout, stderr, resize: sizes } = received;
    let status = error.ok_or(SessionError::Closed)?;
    let io = Streams {
        // Whole, not just the reading side: kubectl takes our FIN on it as word that input is not wanted.
        stdin: stdin.filter(|_| options.stdin).map(|stream| Box::new(stream) as _),
        stdout: stdout.filter(|_| options.stdout).map(|stream| Box::new(stream) as _),
        stderr: stderr.filter(|_| options.stderr && !options.tty).map(|stream| Box::new(stream) as _),
        resize: sizes.map(|stream| resize::receive(Box::new(stream))),
    };
    let format = if protocol == V4 { Format::Json } else { Format::Text };
    Ok(Connected { io, status: Box::new(status), format, transport: Transport::Spdy(session) })
}

async fn receive(
    session: &mut Session,
    received: &mut Received,
    options: Options,
    resizes: bool,
) -> Result<(), SessionError> {
    while !received.complete(options, resizes) {
        let incoming = session.accept().await.ok_or(SessionError::Closed)?;
        let place = match incoming.headers().get("streamType") {
            Some("error") => &mut received.error,
            Some("stdin") => &mut received.stdin,
            Some("stdout") => &mut received.stdout,
            Some("stderr") => &mut received.stderr,
            Some("resize") => &mut received.resize,
            _ => {
                incoming.refuse().await?;
                continue;
            }
        };
        match place {
            None => *place = Some(incoming.accept().await?),
            Some(_) => incoming.refuse().await?,
        }
    }
    Ok(())
}

impl Received {
    fn complete(&self, options: Options, resizes: bool) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !options.stdin)
            && (self.stdout.is_some() || !options.stdout)
            && (self.stderr.is_some() || !options.stderr)
            && (self.resize.is_some() || !resizes)
    }
}
