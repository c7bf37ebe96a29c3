//! Questions over UDP, as many at a time as wait. Most were asked before and are answered at once from [`Ready`],
//! the others by the resolver; what it must ask elsewhere waits in tasks of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;

use super::datagrams::Datagrams;
use super::metrics::Channel;
use super::ready::Ready;
use super::resolver::Resolver;
use super::server::PAUSE;
use super::wire::{Edns, Query, Question, TCP_LEN_MAX, UDP_LEN_MAX, UDP_LEN_MIN, parse_query};

/// Serves one socket.
pub(super) async fn serve(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut ready = Ready::new(&resolver.zone);
    let mut datagrams = Datagrams::new();
    loop {
        let readable = tokio::select! {
            readable = socket.readable() => readable,
            () = changed(&mut ready) => continue,
        };
        let served = match readable {
            Ok(()) => serve_batch(&socket, &resolver, ready.as_mut(), &mut datagrams).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "receive DNS queries");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn changed(ready: &mut Option<Ready>) {
    match ready {
        Some(ready) => ready.changed().await,
        None => std::future::pending().await,
    }
}

async fn serve_batch(
    socket: &Arc<UdpSocket>,
    resolver: &Arc<Resolver>,
    mut ready: Option<&mut Ready>,
    datagrams: &mut Datagrams,
) -> io::Result<()> {
    let count = datagrams.receive(socket)?;
    let asked = Instant::now();
    if let Some(ready) = ready.as_deref_mut() {
        ready.take_changes();
    }
    for at in 0..count {
        let Some(client) = datagrams.client(at) else { continue };
        let (message, answer) = datagrams.exchange(at);
        let came = (Channel::udp(client), message);
        if let Some(query) = answer_at_once(resolver, ready.as_deref_mut(), came, asked, answer) {
            let (socket, resolver, len) = (socket.clone(), resolver.clone(), message.len());
            tokio::spawn(async move {
                let answer = answer_later(&socket, &resolver, &query, client).await;
                resolver.metrics.answered(Channel::udp(client), query.kind, len, &answer, asked.elapsed());
            });
        }
    }
    datagrams.send(socket).await
}

/// Writes the answer; what others must be asked first is returned.
fn answer_at_once(
    resolver: &Resolver,
    ready: Option<&mut Ready>,
    (channel, message): (Channel, &[u8]),
    asked: Instant,
    to: &mut Vec<u8>,
) -> Option<Query> {
    let question = Question::read(message);
    let kind = match ready.zip(question) {
        Some((ready, question)) if ready.concerns(&question) => {
            if !ready.answer(&question, len_max(question.edns), to) {
                let query = parse_query(message).ok()?;
                let Some(answer) = answer_and_keep(resolver, ready, &question, &query) else {
                    return Some(query);
                };
                to.extend(answer);
            }
            question.kind
        }
        _ => match parse_query(message) {
            Ok(query) => {
                let Some(answer) = resolver.answer_at_once(&query, len_max(query.edns)) else {
                    return Some(query);
                };
                to.extend(answer);
                query.kind
            }
            Err(refusal) => {
                to.extend(refusal.unwrap_or_default());
                return None;
            }
        },
    };
    resolver.metrics.answered(channel, kind, message.len(), to, asked.elapsed());
    None
}

/// Keeps what is whole for those who ask the same.
fn answer_and_keep(
    resolver: &Resolver,
    ready: &mut Ready,
    question: &Question<'_>,
    query: &Query,
) -> Option<Vec<u8>> {
    let whole = resolver.answer_at_once(query, TCP_LEN_MAX)?;
    if whole.len() > len_max(query.edns) {
        return resolver.answer_at_once(query, len_max(query.edns));
    }
    ready.keep(question, &whole);
    Some(whole)
}

async fn answer_later(socket: &UdpSocket, resolver: &Resolver, query: &Query, client: SocketAddr) -> Vec<u8> {
    let answer = resolver.answer_from_others(query, len_max(query.edns), false).await;
    // A client that is gone is no concern of ours.
    if let Err(error) = socket.send_to(&answer, client).await {
        tracing::debug!(%error, %client, "send DNS answer");
    }
    answer
}

/// What the client says it takes, within what we send.
fn len_max(edns: Option<Edns>) -> usize {
    edns.map_or(UDP_LEN_MIN, |edns| usize::from(edns.udp_len).clamp(UDP_LEN_MIN, UDP_LEN_MAX))
}
