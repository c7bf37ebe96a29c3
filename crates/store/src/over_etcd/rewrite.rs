//! Seals anew what lies in etcd in another form than it would be written now, after a key has changed. As with upstream's
//! way to rotate keys each object is written again, and so gets a new revision; nobody else is kept waiting.

use std::sync::Arc;

use bytes::Bytes;
use etcd::Error;
use etcd::keys;
use etcd::proto::{Compare, KeyValue, RangeRequest, RequestOp, TxnRequest};
use tokio::sync::Notify;

use super::hub::Hub;
use super::load::PAGE_KEYS;
use crate::key::Key;
use crate::transform::{Freshness, TransformError};

#[derive(Debug, thiserror::Error)]
enum RewriteError {
    #[error("ask etcd")]
    Etcd(#[from] Error),
    #[error("{key}: {source}")]
    Seal { key: Key, source: TransformError },
}

/// Goes through everything whenever it is asked to.
pub(crate) async fn run(hub: Arc<Hub>, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        match rewrite(&hub).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, "what was encrypted otherwise is written anew"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "not all that is encrypted otherwise is written anew");
            }
        }
    }
}

async fn rewrite(hub: &Hub) -> Result<usize, RewriteError> {
    let (mut from, mut rewritten) = (hub.values.prefix.clone(), 0);
    loop {
        let range_end = keys::end_of_prefix(&hub.values.prefix);
        let request = RangeRequest { key: from, range_end, limit: PAGE_KEYS, ..RangeRequest::default() };
        let page = hub.client.range(request).await?;
        for kv in &page.kvs {
            match rewrite_one(hub, kv).await {
                Ok(is_written) => rewritten += usize::from(is_written),
                Err(RewriteError::Seal { key, source }) => {
                    tracing::error!(%key, error = %source, "an object stays encrypted as it was");
                }
                Err(error) => return Err(error),
            }
        }
        match page.kvs.last().filter(|_| page.more) {
            Some(last) => from = keys::after(&last.key),
            None => return Ok(rewritten),
        }
    }
}

/// Whether it was written. What somebody else has written meanwhile is as it should be.
async fn rewrite_one(hub: &Hub, kv: &KeyValue) -> Result<bool, RewriteError> {
    let path = kv.key.strip_prefix(&*hub.values.prefix).and_then(|path| std::str::from_utf8(path).ok());
    let Some(key) = path.and_then(|path| hub.values.codec.key(path)) else { return Ok(false) };
    // What lives for a while only is gone soon, and its lease would be lost.
    if !hub.values.transformer.is_for(&key.resource) || hub.values.codec.ttl(&key).is_some() {
        return Ok(false);
    }
    let failed = |source| RewriteError::Seal { key: key.clone(), source };
    let (plain, Freshness::Stale) = hub.values.open(&key, &kv.value).map_err(failed)? else {
        return Ok(false);
    };
    let sealed = hub.values.seal(&key, Bytes::copy_from_slice(&plain)).map_err(failed)?;
    let request = TxnRequest {
        compare: vec![Compare::mod_revision_is(kv.key.clone(), kv.mod_revision)],
        success: vec![RequestOp::put(kv.key.clone(), sealed, 0)],
        failure: Vec::new(),
    };
    Ok(hub.client.txn(request).await?.response.succeeded)
}
