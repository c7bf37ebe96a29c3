//! Questions over TCP: as many as a client likes on each connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics::Channel;
use super::resolver::Resolver;
use super::server::PAUSE;
use super::wire::{TCP_LEN_MAX, parse_query};

/// Open connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;

/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(10);

pub(super) async fn serve(listener: TcpListener, resolver: Arc<Resolver>, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, client)) => {
                let serve = serve_connection(stream, Channel::tcp(client), resolver.clone());
                let serve = stop.clone().run_until_cancelled_owned(serve);
                tokio::spawn(async move {
                    if let Some(Err(error)) = serve.await {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept DNS connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    channel: Channel,
    resolver: Arc<Resolver>,
) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            message.resize(usize::from(length), 0);
            stream.read_exact(&mut message).await
        };
        timeout(IDLE, read).await??;
        let asked = Instant::now();
        let answer = match parse_query(&message) {
            Ok(query) => {
                let answer = match resolver.answer_at_once(&query, TCP_LEN_MAX) {
                    Some(answer) => answer,
                    None => resolver.answer_from_others(&query, TCP_LEN_MAX, true).await,
                };
                resolver.metrics.answered(channel, query.kind, message.len(), &answer, asked.elapsed());
                answer
            }
            Err(Some(answer)) => answer,
            Err(None) => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let write = async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        };
        timeout(IDLE, write).await??;
    }
}
