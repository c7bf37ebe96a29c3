//! Between what etcd keeps and what the store keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::KeyValue;

use super::hub::revision;
use crate::entry::{Draft, Entry};
use crate::intern::Interner;
use crate::key::Key;

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
    /// What all keys begin with, a slash at its end.
    pub(crate) prefix: Bytes,
    codec: Arc<dyn Codec>,
    interner: Interner,
}

impl Decoder {
    pub(crate) fn new(prefix: &str, codec: Arc<dyn Codec>) -> Decoder {
        Decoder { prefix: Bytes::copy_from_slice(prefix.as_bytes()), codec, interner: Interner::default() }
    }

    /// The object that a key of etcd's names; none for what is no object of this store.
    pub(crate) fn key(&mut self, full: &[u8]) -> Option<Key> {
        let path = std::str::from_utf8(full.strip_prefix(&*self.prefix)?).ok()?;
        let Key { resource, namespace, name } = self.codec.key(path)?;
        Some(Key {
            resource: self.interner.intern(&resource),
            namespace: self.interner.intern(&namespace),
            name,
        })
    }

    /// An object as it is there. One that cannot be read is left out, and the log says so.
    pub(crate) fn entry(&mut self, kv: &KeyValue) -> Option<Entry> {
        let key = self.key(&kv.key)?;
        let draft = match self.codec.decode(&key, &kv.value) {
            Ok(draft) => draft,
            Err(error) => {
                tracing::error!(%key, %error, "an object in etcd cannot be read and does not show");
                return None;
            }
        };
        let revision = revision(kv.mod_revision);
        Some(Entry {
            key,
            revision,
            created: super::hub::revision(kv.create_revision),
            bytes: draft.finish(revision),
            meta: draft.meta.interned(&mut self.interner),
        })
    }
}
