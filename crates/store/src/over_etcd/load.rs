//! Everything that is there, as of one revision.

use std::sync::Arc;

use bytes::Bytes;
use etcd::proto::{RangeRequest, RangeResponse};
use etcd::{Client, Error, keys};

use super::codec::Decoder;
use super::hub::revision;
use crate::key::Key;
use crate::log::OpenError;
use crate::state::{Retention, State};

/// How many keys one answer may have. Objects are some kilobytes, so that an answer is some megabytes.
pub(crate) const PAGE_KEYS: i64 = 1000;

/// Reads everything, once more from the start if the revision is compacted meanwhile.
pub(crate) async fn load(
    client: &Client,
    decoder: &mut Decoder,
    retention: Retention,
) -> Result<State, OpenError> {
    loop {
        match load_once(client, decoder, retention).await {
            Err(OpenError::Etcd(error)) if error.is_compacted() => {
                tracing::warn!("compaction overtook the reading of etcd")
            }
            loaded => return loaded,
        }
    }
}

async fn load_once(client: &Client, decoder: &mut Decoder, retention: Retention) -> Result<State, OpenError> {
    let first = page(client, decoder, decoder.prefix().clone(), 0).await?;
    let at = first.header.unwrap_or_default().revision;
    let mut state = State::new(revision(at), retention);
    let mut next = put_in(&mut state, decoder, &first)?;
    while let Some(from) = next {
        let page = page(client, decoder, from, at).await?;
        next = put_in(&mut state, decoder, &page)?;
    }
    Ok(state)
}

async fn page(client: &Client, decoder: &Decoder, key: Bytes, revision: i64) -> Result<RangeResponse, Error> {
    let range_end = keys::end_of_prefix(decoder.prefix());
    client.range(RangeRequest { key, range_end, limit: PAGE_KEYS, revision, ..RangeRequest::default() }).await
}

/// Where the next page begins, if there is one.
fn put_in(
    state: &mut State,
    decoder: &mut Decoder,
    page: &RangeResponse,
) -> Result<Option<Bytes>, OpenError> {
    for kv in &page.kvs {
        let Some(key) = decoder.key(&kv.key) else { continue };
        let Key { resource, namespace, name } = key.clone();
        let unreadable = |source| OpenError::Unreadable { resource, namespace, name, source };
        if let Some(entry) = decoder.entry(key, kv).map_err(unreadable)? {
            state.restore(Arc::new(entry));
        }
    }
    Ok(page.kvs.last().filter(|_| page.more).map(|last| keys::after(&last.key)))
}
