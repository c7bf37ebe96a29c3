//! What becomes of bootstrap tokens, by which machines join: some sign what tells them of the cluster, and all end
//! (follows upstream's `pkg/controller/bootstrap`).

mod bootstrapsigner;
mod tokencleaner;

use std::collections::BTreeMap;

use api::view::Object;
use apimachinery::meta::ObjectMeta;
use apimachinery::time::parse_time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

pub use bootstrapsigner::new as signer;
pub use tokencleaner::new as cleaner;

/// The Secrets that stand for tokens.
const SELECTOR: &str = "type=bootstrap.kubernetes.io/token,metadata.namespace=kube-system";

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
        match self.data.get("expiration") {
            Some(text) if !text.is_empty() => {
                let end = self.text("expiration").and_then(|text| parse_time(&text));
                end.map_or(Expiration::Unreadable, Expiration::At)
            }
            _ => Expiration::Never,
        }
    }
}
