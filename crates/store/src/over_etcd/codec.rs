//! Between what etcd keeps and what the store keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::KeyValue;

use super::hub::revision;
use super::values::Values;
use crate::beside::Beside;
use crate::entry::{Draft, Entry};
use crate::intern::Interner;
use crate::key::Key;
use crate::transform::{Freshness, TransformError};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// How objects are written where others read them too: their keys, and the bytes of their values.
pub trait Codec: Send + Sync {
    /// Where an object is kept, below the prefix and without a slash in front.
    fn path(&self, key: &Key) -> String;

    /// Which object a path leads to; none for what is no object.
    fn key(&self, path: &str) -> Option<Key>;

    fn encode(&self, key: &Key, draft: &Draft) -> Result<Bytes, CodecError>;

    fn decode(&self, key: &Key, value: &[u8]) -> Result<Draft, CodecError>;

    /// How long an object lives after it was last written; none lives until it is deleted.
    fn ttl(&self, key: &Key) -> Option<Duration>;
}

/// Makes entries of what etcd tells.
pub(crate) struct Decoder {
    values: Arc<Values>,
    interner: Interner,
    /// Whether anything has shown that would be sealed in another way now.
    pub(crate) has_seen_stale: bool,
}

impl Decoder {
    pub(crate) fn new(values: Arc<Values>) -> Decoder {
        Decoder { values, interner: Interner::default(), has_seen_stale: false }
    }

    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.values.prefix
    }

    /// The object that a key of etcd's names; none for what is no object of this store.
    pub(crate) fn key(&mut self, full: &[u8]) -> Option<Key> {
        let path = std::str::from_utf8(full.strip_prefix(&*self.values.prefix)?).ok()?;
        let Key { resource, namespace, name } = self.values.codec.key(path)?;
        Some(Key {
            resource: self.interner.intern(&resource),
            namespace: self.interner.intern(&namespace),
            name,
        })
    }

    /// An object as it is there, none if it cannot be read, of which the log tells. An error is one that no key opens.
    pub(crate) fn entry(&mut self, key: Key, kv: &KeyValue) -> Result<Option<Entry>, TransformError> {
        let (plain, freshness) = self.values.open(&key, &kv.value)?;
        self.has_seen_stale |= freshness == Freshness::Stale;
        let draft = match self.values.codec.decode(&key, &plain) {
            Ok(draft) => draft,
            Err(error) => {
                tracing::error!(%key, %error, "an object in etcd cannot be read and does not show");
                return Ok(None);
            }
        };
        let revision = revision(kv.mod_revision);
        Ok(Some(Entry {
            key,
            revision,
            created: super::hub::revision(kv.create_revision),
            bytes: draft.finish(revision),
            meta: draft.meta.interned(&mut self.interner),
            beside: Beside::default(),
        }))
    }
}
