//! What becomes of bootstrap tokens, by which machines join: some sign what tells them of the cluster, and all end
//! (follows upstream's `pkg/controller/bootstrap`).

mod bootstrapsigner;
mod tokencleaner;

use std::collections::BTreeMap;

use api::bootstraptoken::{EXPIRATION, NAMESPACE, SECRET_TYPE};
use api::view::Object;
use apimachinery::meta::ObjectMeta;
use apimachinery::time::parse_time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

pub use bootstrapsigner::new as signer;
pub use tokencleaner::new as cleaner;

/// Selects the Secrets that stand for tokens.
fn selector() -> String {
    format!("type={SECRET_TYPE},metadata.namespace={NAMESPACE}")
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    metadata: ObjectMeta,
    data: BTreeMap<String, String>,
}

impl Object for Token {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiration {
    Never,
    At(Timestamp),
    /// What cannot be read is over: nobody is let in by it.
    Unreadable,
}

impl Token {
    /// A value of the Secret; `None` where it is missing, empty or no text.
    fn text(&self, key: &str) -> Option<String> {
        let bytes = STANDARD.decode(self.data.get(key)?).ok()?;
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }

    fn expiration(&self) -> Expiration {
        match self.data.get(EXPIRATION) {
            Some(text) if !text.is_empty() => {
                let end = self.text(EXPIRATION).and_then(|text| parse_time(&text));
                end.map_or(Expiration::Unreadable, Expiration::At)
            }
            _ => Expiration::Never,
        }
    }
}
