//! YAML as sigs.k8s.io/yaml takes it: any document that is JSON in other clothes.

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::decode::Walk;
use super::{Error, TypeMeta};
use crate::Value;
use crate::schema::TypeId;

/// Decodes one document; the walk sees duplicate keys and reports them.
pub(super) fn decode(
    bytes: &[u8],
    walk: &Walk<'_>,
    root: TypeId,
) -> Result<Option<Value>, serde_saphyr::Error> {
    let seed = walk.root(root);
    let options = options(DuplicateKeyPolicy::LastWins);
    serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |input| seed.deserialize(input))
}

/// As `decode`, by a seed of the caller's.
pub(super) fn decode_with<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> Result<S::Value, serde_saphyr::Error> {
    let options = options(DuplicateKeyPolicy::LastWins);
    serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |input| seed.deserialize(input))
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// What a document says it is.
pub(super) fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    serde_saphyr::from_slice_with_options(bytes, options(DuplicateKeyPolicy::LastWins))
        .map_err(|e| Error::Syntax(e.to_string()))
}

/// Any document as plain JSON.
pub fn to_value(bytes: &[u8]) -> Result<Value, Error> {
    serde_saphyr::from_slice_with_options(bytes, options(DuplicateKeyPolicy::Error))
        .map_err(|e| Error::Syntax(e.to_string()))
}

/// The issues of a document as upstream has them, whose reader of YAML is the one to notice that a key stands twice.
/// A warning says it without, an error behind `prefix`.
pub(super) fn in_its_words(bytes: &[u8], issues: Vec<String>, prefix: &str) -> Vec<String> {
    let (doubles, others): (Vec<_>, Vec<_>) =
        issues.into_iter().partition(|issue| issue.starts_with("duplicate field "));
    if doubles.is_empty() {
        return others;
    }
    let doubles = duplicate_key(bytes).map_or(doubles, |complaint| vec![format!("{prefix}{complaint}")]);
    doubles.into_iter().chain(others).collect()
}

/// What upstream's reader of YAML says before what it complains about.
pub const UNMARSHAL_ERRORS: &str = "yaml: unmarshal errors:\n  ";

/// Where the first key stands twice, in upstream's words.
pub fn duplicate_key(bytes: &[u8]) -> Option<String> {
    let options = options(DuplicateKeyPolicy::Error);
    let error = serde_saphyr::from_slice_with_options::<Value>(bytes, options).err()?;
    let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } = error.without_snippet()
    else {
        return None;
    };
    Some(format!("line {}: key {key:?} already set in map", location.line()))
}

pub fn encode(value: &Value) -> Result<Bytes, Error> {
    let text = serde_saphyr::to_string(value).map_err(|e| Error::Syntax(e.to_string()))?;
    Ok(text.into_bytes().into())
}
