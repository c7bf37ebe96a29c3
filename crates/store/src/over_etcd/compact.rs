//! Lets etcd forget what is long past. Of all servers that share an etcd one does it each time: whoever writes a common key
//! first. Follows `etcd3/compact.go`, with which it shares the key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::{Compare, RequestOp, TxnRequest};
use etcd::{Client, Error};
use tokio::time::sleep;

/// Its version counts the rounds, its value is the revision that was compacted last. It is outside all prefixes.
const KEY: Bytes = Bytes::from_static(b"compact_rev_key");

/// What one round has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    number: i64,
    revision: i64,
}

/// Compacts with every round what was there a round ago.
pub(crate) async fn run(client: Arc<Client>, interval: Duration) {
    let mut last = Round::default();
    loop {
        sleep(interval).await;
        match next(&client, last).await {
            Ok(round) => last = round,
            Err(error) => tracing::warn!(%error, "etcd was not compacted"),
        }
    }
}

async fn next(client: &Client, last: Round) -> Result<Round, Error> {
    let value = last.revision.to_string();
    let request = TxnRequest {
        compare: vec![Compare::version_is(KEY, last.number)],
        success: vec![RequestOp::put(KEY, value.into(), 0)],
        failure: vec![RequestOp::get(KEY)],
    };
    let answer = client.txn(request).await?.response;
    let revision = answer.header.unwrap_or_default().revision;
    if !answer.succeeded {
        // Another server was first.
        let number = answer.found().map_or(0, |found| found.version);
        return Ok(Round { number, revision });
    }
    if last.revision > 0 {
        client.compact(last.revision).await?;
        tracing::info!(revision = last.revision, "etcd is compacted");
    }
    Ok(Round { number: last.number + 1, revision })
}
