//! The opaque token with which a client asks for the next page of a list: where to go on and at which revision.
//! Same form as upstream's (`EncodeContinue`).

use apimachinery::Status;
use apimachinery::codec::json_error;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use store::Revision;

const VERSION: &str = "meta.k8s.io/v1";

/// The revision that stands for "whatever is newest": the list goes on, but is no longer one consistent snapshot.
const INCONSISTENT: i64 = -1;

#[derive(Debug, Deserialize, Serialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// None goes on at the newest revision.
    pub revision: Option<Revision>,
    pub namespace: String,
    pub name: String,
}

impl Continue {
    /// Everything after this object has not been returned yet.
    pub fn after(namespace: &str, name: &str, revision: Option<Revision>) -> Continue {
        Continue { revision, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(INCONSISTENT, |r| r.0.cast_signed());
        let start = format!("{}/{}\0", self.namespace, self.name);
        let token = Token { v: VERSION.to_owned(), rv, start };
        let json = serde_json::to_vec(&token).expect("a token of text and numbers encodes");
        URL_SAFE_NO_PAD.encode(json)
    }

    pub fn decode(text: &str) -> Result<Continue, Status> {
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let json = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| invalid(&e.to_string()))?;
        let token: Token = serde_json::from_slice(&json).map_err(|e| invalid(&json_error(&json, &e)))?;
        if token.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        let (namespace, name) = token
            .start
            .strip_suffix('\0')
            .and_then(|start| start.split_once('/'))
            .ok_or_else(|| invalid(&format!("incorrect encoded start {:?}", token.start)))?;
        let revision = match token.rv {
            INCONSISTENT => None,
            rv if rv > 0 => Some(Revision(rv.cast_unsigned())),
            rv => return Err(invalid(&format!("incorrect encoded start resourceVersion {rv}"))),
        };
        Ok(Continue::after(namespace, name, revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_token_reads_back_as_written(rv in 1u64..1 << 60, ns in "[a-z-]{0,9}", name in "[a-z.-]{1,9}") {
            let token = Continue::after(&ns, &name, Some(Revision(rv)));
            proptest::prop_assert_eq!(Continue::decode(&token.encode()).expect("decodes"), token);
        }

        #[test]
        fn garbage_is_refused(text in ".{0,40}") {
            proptest::prop_assert!(Continue::decode(&text).is_err());
        }
    }
}
