//! The seam through which objects are encrypted on their way to the disk, and decrypted on their way back. What memory
//! holds is plain; which resources are encrypted, and how, is not known here. Follows upstream's `value.Transformer`.

use std::fmt::Debug;

/// Why data could not be encrypted or decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

/// `place` says where the data lies; it must be the same when it is read back, so that nothing can be moved elsewhere.
pub trait Transformer: Debug + Send + Sync {
    /// Whether objects of this resource are written in any other form than their own.
    fn is_for(&self, resource: &str) -> bool;

    fn seal(&self, resource: &str, place: &[u8], data: &[u8]) -> Result<Vec<u8>, TransformError>;

    /// The data, and whether it would be written in another form now.
    fn open(&self, resource: &str, place: &[u8], data: &[u8])
    -> Result<(Vec<u8>, Freshness), TransformError>;
}

/// Whether data lies on the disk as it would be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    Stale,
}

/// Leaves everything as it is, and does not take what is encrypted for what it is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Transformer for Identity {
    fn is_for(&self, _: &str) -> bool {
        false
    }

    fn seal(&self, _: &str, _: &[u8], data: &[u8]) -> Result<Vec<u8>, TransformError> {
        Ok(data.to_vec())
    }

    fn open(&self, _: &str, _: &[u8], data: &[u8]) -> Result<(Vec<u8>, Freshness), TransformError> {
        match data.starts_with(b"k8s:enc:") {
            true => Err(TransformError("identity transformer tried to read encrypted data".to_owned())),
            // Sealed though it need not be: whoever sealed it wanted to write it otherwise.
            false => Ok((data.to_vec(), Freshness::Stale)),
        }
    }
}
