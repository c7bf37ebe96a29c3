//! Files that say who is believed and who decides: kinds of `apiserver.config.k8s.io`, read strictly.

use apimachinery::codec::yaml;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use serde::de::DeserializeOwned;

/// Versions that read alike.
const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Syntax(String),
    #[error("no kind {found:?} is known; expected {wanted} in {API_VERSIONS:?}")]
    Kind { found: String, wanted: &'static str },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Invalid(ErrorList),
}

pub fn read<T: DeserializeOwned>(text: &str, kind: &'static str) -> Result<T, Error> {
    let value = yaml::to_value(text.as_bytes()).map_err(|error| Error::Syntax(error.to_string()))?;
    let (version, found) = (str_at(&value, &["apiVersion"]), str_at(&value, &["kind"]));
    if found != kind || !API_VERSIONS.contains(&version) {
        return Err(Error::Kind { found: format!("{version}, Kind={found}"), wanted: kind });
    }
    apimachinery::from_value(value).map_err(|error| Error::Syntax(format!("strict decoding error: {error}")))
}
