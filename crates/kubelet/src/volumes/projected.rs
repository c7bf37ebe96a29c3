//! Volumes made of API objects: configMap, secret, downwardAPI, and projections of them with service account tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::resource::SERVICE_ACCOUNTS;
use api::view::core::{
    ConfigMap, ConfigMapVolumeSource, DownwardApiVolumeSource, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    SecretVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use jiff::{SignedDuration, Timestamp};

use super::atomic_writer::{File, Payload};
use super::{Context, downward, get_config_map, get_secret};
use crate::pod::container::only_user;
use crate::pod::fs_group;

/// Upstream's defaults: 0644 for volumes, an hour for tokens.
const DEFAULT_MODE: u32 = 0o644;
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

type Keys = BTreeMap<String, Vec<u8>>;

pub async fn config_map(
    client: &Client,
    pod: &Pod,
    source: &ConfigMapVolumeSource,
) -> Result<Payload, String> {
    let found = get_config_map(client, &pod.metadata.namespace, &source.name).await?;
    let keys = config_map_keys(found, &source.name, source.optional)?;
    files(&keys, &source.items, source.default_mode, source.optional)
}

pub async fn secret(client: &Client, pod: &Pod, source: &SecretVolumeSource) -> Result<Payload, String> {
    let found = get_secret(client, &pod.metadata.namespace, &source.secret_name).await?;
    let keys = secret_keys(found, &source.secret_name, source.optional)?;
    files(&keys, &source.items, source.default_mode, source.optional)
}

pub fn downward_api(
    cx: &Context<'_>,
    pod: &Pod,
    source: &DownwardApiVolumeSource,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in &source.items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, cx.pod_ips, cx.host_ips)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, &cx.allocatable)?,
            (None, None) => continue,
        };
        insert(&mut payload, &item.path, text.into_bytes(), item.mode.or(source.default_mode));
    }
    Ok(payload)
}

/// All sources in one directory, and when its tokens must be renewed.
pub async fn projected(
    cx: &Context<'_>,
    pod: &Pod,
    source: &ProjectedVolumeSource,
    dir: &Path,
) -> Result<(Payload, Option<Timestamp>), String> {
    let mut payload = Payload::new();
    let mut refresh_at = None;
    for projection in &source.sources {
        if let Some(token) = &projection.service_account_token {
            let (bytes, renew_at) = projected_token(cx, pod, token, dir).await?;
            payload.insert(PathBuf::from(&token.path), token_file(pod, bytes, source.default_mode));
            refresh_at = [refresh_at, Some(renew_at)].into_iter().flatten().min();
        } else {
            payload.extend(project(cx, pod, projection, source.default_mode).await?);
        }
    }
    Ok((payload, refresh_at))
}

async fn project(
    cx: &Context<'_>,
    pod: &Pod,
    projection: &VolumeProjection,
    mode: Option<i32>,
) -> Result<Payload, String> {
    let namespace = &pod.metadata.namespace;
    if let Some(source) = &projection.config_map {
        let found = get_config_map(cx.client, namespace, &source.name).await?;
        let keys = config_map_keys(found, &source.name, source.optional)?;
        return files(&keys, &source.items, mode, source.optional);
    }
    if let Some(source) = &projection.secret {
        let found = get_secret(cx.client, namespace, &source.name).await?;
        let keys = secret_keys(found, &source.name, source.optional)?;
        return files(&keys, &source.items, mode, source.optional);
    }
    match &projection.downward_api {
        Some(source) => {
            let source = DownwardApiVolumeSource { items: source.items.clone(), default_mode: mode };
            downward_api(cx, pod, &source)
        }
        None => Ok(Payload::new()),
    }
}

fn config_map_keys(found: Option<ConfigMap>, name: &str, optional: Option<bool>) -> Result<Keys, String> {
    let Some(map) = found else { return absent("configmap", name, optional) };
    let mut keys: Keys = map.data.into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
    keys.extend(decode(map.binary_data)?);
    Ok(keys)
}

fn secret_keys(found: Option<Secret>, name: &str, optional: Option<bool>) -> Result<Keys, String> {
    match found {
        Some(secret) => decode(secret.data),
        None => absent("secret", name, optional),
    }
}

fn absent(what: &str, name: &str, optional: Option<bool>) -> Result<Keys, String> {
    if optional == Some(true) { Ok(Keys::new()) } else { Err(format!("{what} {name:?} not found")) }
}

fn decode(data: BTreeMap<String, String>) -> Result<Keys, String> {
    data.into_iter()
        .map(|(key, text)| {
            STANDARD.decode(&text).map(|bytes| (key, bytes)).map_err(|e| format!("value is not base64: {e}"))
        })
        .collect()
}

/// All keys under their own names, or only the items under theirs.
fn files(
    keys: &Keys,
    items: &[KeyToPath],
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    if items.is_empty() {
        for (key, bytes) in keys {
            insert(&mut payload, key, bytes.clone(), mode);
        }
    }
    for item in items {
        match keys.get(&item.key) {
            Some(bytes) => insert(&mut payload, &item.path, bytes.clone(), item.mode.or(mode)),
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(payload)
}

fn insert(payload: &mut Payload, path: &str, bytes: Vec<u8>, mode: Option<i32>) {
    payload.insert(PathBuf::from(path), File { bytes, mode: mode_or_default(mode), owner: None });
}

fn mode_or_default(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE)
}

/// Only who is meant can read a token, where it is known who that is: the only user, or the group of the volumes.
fn token_file(pod: &Pod, bytes: Vec<u8>, mode: Option<i32>) -> File {
    const PRIVATE: u32 = 0o600;
    let owner = only_user(pod);
    let mode = if owner.is_some() || fs_group(pod).is_some() { PRIVATE } else { mode_or_default(mode) };
    File { bytes, mode, owner }
}

/// The token on disk while it is fresh, else a new one; and when it will not be fresh any more.
async fn projected_token(
    cx: &Context<'_>,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    dir: &Path,
) -> Result<(Vec<u8>, Timestamp), String> {
    if let Ok(bytes) = std::fs::read(dir.join(&source.path))
        && let Some(renew_at) = renewal(&bytes).filter(|at| *at > cx.now)
    {
        return Ok((bytes, renew_at));
    }
    let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT);
    let status = service_account_token(cx.client, pod, &source.audience, Some(seconds)).await?;
    let token = str_at(&status, &["token"]).as_bytes().to_vec();
    let renew_at = renewal(&token).unwrap_or(cx.now + SignedDuration::from_secs(TOKEN_SECONDS_DEFAULT));
    Ok((token, renew_at))
}

/// A token of the pod's service account, as the status of a TokenRequest; an empty audience is the API server's.
pub async fn service_account_token(
    client: &Client,
    pod: &Pod,
    audience: &str,
    expiration_seconds: Option<i64>,
) -> Result<Value, String> {
    let account =
        if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
    let audiences = if audience.is_empty() { vec![] } else { vec![audience] };
    let mut request = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": audiences,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid},
        },
    });
    if let Some(seconds) = expiration_seconds {
        request["spec"]["expirationSeconds"] = seconds.into();
    }
    let namespace = &pod.metadata.namespace;
    let answer = client.create_subresource(SERVICE_ACCOUNTS, namespace, account, "token", &request).await;
    let mut answer = answer.map_err(|e| format!("failed to fetch token: {e}"))?;
    Ok(answer["status"].take())
}

/// 80 % of the token's life, at most a day after its start (upstream: `token_manager.requiresRefresh`).
fn renewal(token: &[u8]) -> Option<Timestamp> {
    const DAY_SECONDS: i64 = 24 * 3600;
    let payload = std::str::from_utf8(token).ok()?.split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: apimachinery::Value = serde_json::from_slice(&claims).ok()?;
    let (issued, expires) = (claims["iat"].as_i64()?, claims["exp"].as_i64()?);
    let fresh = ((expires - issued) * 8 / 10).min(DAY_SECONDS);
    Timestamp::from_second(issued + fresh).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        [("a", "1"), ("b", "2")].map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec())).into()
    }

    #[test]
    fn items_choose_and_rename_keys() {
        let item = |key: &str| KeyToPath { key: key.into(), path: "x/y".into(), mode: Some(0o400) };
        let all = files(&keys(), &[], None, None).expect("all");
        assert_eq!((all.len(), all[Path::new("a")].mode), (2, 0o644));
        let one = files(&keys(), &[item("b")], None, None).expect("one");
        assert_eq!((one.len(), one[Path::new("x/y")].mode), (1, 0o400));
        assert_eq!(
            files(&keys(), &[item("c")], None, None).expect_err("absent"),
            "references non-existent config key: c"
        );
        assert!(files(&keys(), &[item("c")], None, Some(true)).expect("optional").is_empty());
    }

    #[test]
    fn a_token_is_for_whom_it_is_meant() {
        let check = |security: Value, mode: u32, owner: Option<u32>| {
            let pod = json!({"spec": {"containers": [{"name": "a"}], "securityContext": security}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            let file = token_file(&pod, Vec::new(), Some(0o640));
            assert_eq!((file.mode, file.owner), (mode, owner), "{security}");
        };
        check(json!({}), 0o640, None);
        check(json!({"runAsUser": 1000}), 0o600, Some(1000));
        check(json!({"fsGroup": 1000}), 0o600, None);
    }

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":2000}"#);
        assert_eq!(renewal(format!("h.{claims}.s").as_bytes()).map(Timestamp::as_second), Some(1800));
        assert_eq!(renewal(b"nonsense"), None);
    }
}
