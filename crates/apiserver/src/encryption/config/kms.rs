//! What the configuration says of KMS plugins. Follows `validateKMSConfiguration`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::field::{Error as FieldError, ErrorList, Path};
use apimachinery::time::parse_duration;

use super::super::kms::Settings;

pub const FIELDS: [&str; 5] = ["apiVersion", "name", "cachesize", "endpoint", "timeout"];
pub const V1: &str = "v1";
const V2: &str = "v2";
const SCHEME: &str = "unix";
/// What a call may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(3);

fn text<'a>(plugin: &'a Value, field: &str) -> &'a str {
    plugin[field].as_str().unwrap_or_default()
}

pub fn version(plugin: &Value) -> &str {
    if plugin["apiVersion"].is_null() { V1 } else { text(plugin, "apiVersion") }
}

/// Of a valid configuration.
pub fn settings(plugin: &Value) -> Settings {
    let endpoint = text(plugin, "endpoint");
    let socket = endpoint.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("://")).unwrap_or(endpoint);
    Settings {
        name: text(plugin, "name").to_owned(),
        socket: PathBuf::from(socket),
        timeout: timeout(plugin).unwrap_or(TIMEOUT),
    }
}

/// None when it is not positive.
fn timeout(plugin: &Value) -> Option<Duration> {
    if plugin["timeout"].is_null() {
        return Some(TIMEOUT);
    }
    let given = parse_duration(text(plugin, "timeout"))?;
    Duration::try_from(given).ok().filter(|timeout| !timeout.is_zero())
}

/// `names` are those of the plugins that came before.
pub fn validate<'a>(plugin: &'a Value, path: &Path, names: &mut BTreeSet<&'a str>, errors: &mut ErrorList) {
    let at = |field: &str| path.child(field);
    let invalid = |field: &str, why: String| FieldError::invalid(&at(field), plugin[field].clone(), why);
    let (name, version) = (text(plugin, "name"), version(plugin));
    if name.is_empty() {
        errors.push(FieldError::required(&at("name"), "name is a mandatory field for a provider"));
    }
    if version != V1 && name.contains(':') {
        errors.push(invalid("name", format!("invalid KMS provider name {name}, must not contain ':'")));
    }
    if version != V1 && names.contains(name) {
        errors.push(invalid("name", format!("duplicate KMS provider name {name}, names must be unique")));
    }
    if timeout(plugin).is_none() {
        errors.push(invalid("timeout", "timeout should be a positive value".to_owned()));
    }
    errors.extend(wrong_endpoint(text(plugin, "endpoint"), &at("endpoint")));
    if version != V1 && !plugin["cachesize"].is_null() {
        errors.push(invalid("cachesize", "cachesize is not supported in v2".to_owned()));
    }
    if ![V1, V2].contains(&version) {
        let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(invalid("apiVersion", why.to_owned()));
    }
    names.insert(name);
}

fn wrong_endpoint(endpoint: &str, path: &Path) -> Option<FieldError> {
    if endpoint.is_empty() {
        return Some(FieldError::invalid(path, "", "endpoint is a mandatory field for a kms"));
    }
    let scheme = endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
    let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
    (scheme != SCHEME).then(|| FieldError::invalid(path, endpoint, why))
}
