//! What lies in etcd for an object: under which key, and in which bytes, which the codec makes and the transformer seals.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::EtcdConfig;
use super::codec::Codec;
use crate::entry::Draft;
use crate::key::Key;
use crate::queue::CommitError;
use crate::transform::{Freshness, TransformError, Transformer};

pub(crate) struct Values {
    /// What all keys begin with, a slash at its end.
    pub(crate) prefix: Bytes,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) transformer: Arc<dyn Transformer>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Values {
    pub(crate) fn new(config: &EtcdConfig) -> Arc<Values> {
        Arc::new(Values {
            prefix: config.key_prefix().into(),
            codec: config.codec.clone(),
            transformer: config.transformer.clone(),
        })
    }

    /// The whole key of what is at a path.
    pub(crate) fn at(&self, path: &str) -> Bytes {
        [&*self.prefix, path.as_bytes()].concat().into()
    }

    /// Where an object is kept.
    pub(crate) fn key_of(&self, key: &Key) -> Bytes {
        self.at(&self.codec.path(key))
    }

    pub(crate) fn encode(&self, key: &Key, draft: &Draft) -> Result<Bytes, CommitError> {
        let plain = self.codec.encode(key, draft).map_err(|error| CommitError::Encode(Arc::new(error)))?;
        self.seal(key, plain).map_err(CommitError::Seal)
    }

    pub(crate) fn seal(&self, key: &Key, plain: Bytes) -> Result<Bytes, TransformError> {
        if !self.transformer.is_for(&key.resource) {
            return Ok(plain);
        }
        // The place is what upstream authenticates too.
        Ok(self.transformer.seal(&key.resource, &self.key_of(key), &plain)?.into())
    }

    /// What the codec made of an object, and whether it would be sealed in another way now.
    pub(crate) fn open<'a>(
        &self,
        key: &Key,
        value: &'a [u8],
    ) -> Result<(Cow<'a, [u8]>, Freshness), TransformError> {
        let is_for = self.transformer.is_for(&key.resource);
        if !is_for && !value.starts_with(SEALED) {
            return Ok((Cow::Borrowed(value), Freshness::Fresh));
        }
        let (plain, freshness) = self.transformer.open(&key.resource, &self.key_of(key), value)?;
        Ok((Cow::Owned(plain), freshness))
    }
}

/// What every value starts with that a provider has sealed.
const SEALED: &[u8] = b"k8s:enc:";
