//! CBOR (RFC 8949) as Kubernetes has it: objects are JSON's, strings are byte strings, and each object says by a tag
//! that it is CBOR. Follows `serializer/cbor` and its `modes`.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;

use super::{Error, TypeMeta};

/// The head of the tag 55799, which encloses every object that is written (RFC 8949, 3.4.6).
pub const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// What a data item is, in the three highest bits of its first byte.
mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const ARRAY: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
    pub const SIMPLE: u8 = 7;
}

/// The low bits of simple values and floats.
mod simple {
    pub const FALSE: u8 = 20;
    pub const TRUE: u8 = 21;
    pub const NULL: u8 = 22;
    pub const HALF: u8 = 25;
    pub const SINGLE: u8 = 26;
    pub const DOUBLE: u8 = 27;
}

/// The low bits that say that a length is not known ahead, or that such an item ends.
const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

/// What an object says it is.
pub(super) fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    let value = decode(bytes)?;
    let text = |field: &str| match value.get(field) {
        None | Some(crate::Value::Null) => Ok(String::new()),
        Some(crate::Value::String(text)) => Ok(text.to_string()),
        Some(_) => {
            Err(Error::Syntax(format!("unable to determine group/version/kind: {field} is no string")))
        }
    };
    Ok(TypeMeta { api_version: text("apiVersion")?, kind: text("kind")? })
}
