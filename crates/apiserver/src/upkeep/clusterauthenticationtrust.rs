//! The ConfigMap from which extension servers learn whom this server believes, and by whom they are to believe it. Several
//! servers share it: each adds what it lacks, and takes out authorities that have expired. Follows
//! `clusterauthenticationtrust.Controller`.

use std::collections::BTreeMap;

use api::resource;
use apimachinery::{Map, Value, json};
use auth::RequestHeader;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Duty, Write, stored_one};
use crate::authentication::FrontProxies;
use crate::component::Trust;
use crate::core::Core;

pub const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "client-ca-file";
const REQUEST_HEADER_CA: &str = "requestheader-client-ca-file";
const LISTS: [&str; 5] = [
    "requestheader-username-headers",
    "requestheader-uid-headers",
    "requestheader-group-headers",
    "requestheader-extra-headers-prefix",
    "requestheader-allowed-names",
];

pub(super) const DUTY: Duty = Duty {
    watched: &[resource::CONFIG_MAPS],
    all: |core| settle(core).into_iter().collect(),
    after: |core, change| change.is_of(NAMESPACE, NAME).then(|| settle(core)).flatten().into_iter().collect(),
};

fn settle(core: &Core) -> Option<Write> {
    let own = own(core);
    let found = stored_one(core, resource::CONFIG_MAPS, NAMESPACE, NAME);
    decide(&own, found, (core.config.clock)().as_second())
}

/// What this server says of itself.
fn own(core: &Core) -> Map {
    let mut data = Map::new();
    let mut put = |key: &str, value: Value| data.insert(key, value);
    if let Some(authority) = &core.config.client_ca {
        put(CLIENT_CA, authority.as_str().into());
    }
    if let Some(proxies) = &core.config.authentication.request_header {
        put(REQUEST_HEADER_CA, proxies.authority.as_str().into());
        let headers = &proxies.headers;
        let lists = [
            &headers.username_headers,
            &headers.uid_headers,
            &headers.group_headers,
            &headers.extra_headers_prefix,
            &headers.allowed_names,
        ];
        for (key, list) in LISTS.into_iter().zip(lists) {
            put(key, json!(list).to_string().into());
        }
    }
    data
}

/// What the ConfigMap says to a server that is to believe the same.
pub fn read(data: &BTreeMap<String, String>) -> Trust {
    let list = |key: &str| -> Vec<String> {
        let list = data.get(key).and_then(|list| serde_json::from_str(list).ok());
        list.unwrap_or_default()
    };
    let [username_headers, uid_headers, group_headers, extra_headers_prefix, allowed_names] = LISTS.map(list);
    let headers =
        RequestHeader { allowed_names, username_headers, uid_headers, group_headers, extra_headers_prefix };
    let front_proxies = data.get(REQUEST_HEADER_CA).cloned();
    Trust {
        client_ca: data.get(CLIENT_CA).cloned(),
        front_proxies: front_proxies.map(|authority| FrontProxies { authority, headers }),
    }
}

fn decide(own: &Map, found: Option<Value>, now: i64) -> Option<Write> {
    let Some(mut found) = found else {
        let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": own});
        return Some(Write::Create(resource::CONFIG_MAPS, map));
    };
    let data = combined(&found["data"], own, now);
    if found["data"] == data {
        return None;
    }
    found["data"] = data;
    Some(Write::Update(resource::CONFIG_MAPS, found))
}

fn combined(found: &Value, own: &Map, now: i64) -> Value {
    let text = |data: Option<&Value>| data.and_then(Value::as_str).unwrap_or_default().to_owned();
    let both = |key: &str| (text(found.get(key)), text(own.get(key)));
    let mut data = Map::new();
    let mut put_authorities = |key: &str| {
        let (found, own) = both(key);
        let pem = authorities(&found, &own, now);
        let is_there = !pem.is_empty();
        if is_there {
            data.insert(key, pem.into());
        }
        is_there
    };
    put_authorities(CLIENT_CA);
    if put_authorities(REQUEST_HEADER_CA) {
        for key in LISTS {
            let (found, own) = both(key);
            let list = united(&found, &own);
            data.insert(key, json!(list).to_string().into());
        }
    }
    Value::Object(data)
}

/// The certificates of both, each once, without those that have expired.
fn authorities(found: &str, own: &str, now: i64) -> String {
    let mut kept: Vec<CertificateDer<'static>> = Vec::new();
    let all = [found, own].into_iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()));
    for certificate in all.filter_map(Result::ok) {
        let is_good =
            auth::certificate::Subject::of(&certificate).not_after().is_some_and(|until| until > now);
        if is_good && !kept.contains(&certificate) {
            kept.push(certificate);
        }
    }
    kept.iter().map(|certificate| auth::pem::encode("CERTIFICATE", certificate)).collect()
}

/// Two lists as JSON; what is no list counts for nothing.
fn united(found: &str, own: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for list in [found, own] {
        for item in serde_json::from_str::<Vec<String>>(list).unwrap_or_default() {
            if !all.contains(&item) {
                all.push(item);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(year: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        auth::pem::encode("CERTIFICATE", certificate.der())
    }

    fn own(authority: &str) -> Map {
        let Value::Object(data) = json!({CLIENT_CA: authority, REQUEST_HEADER_CA: authority,
            "requestheader-username-headers": "[\"X-Remote-User\"]", "requestheader-uid-headers": "[]",
            "requestheader-group-headers": "[]", "requestheader-extra-headers-prefix": "[]",
            "requestheader-allowed-names": "[\"a\"]"})
        else {
            unreachable!("it is an object")
        };
        data
    }

    #[test]
    fn servers_add_what_they_lack_and_drop_what_has_expired() {
        let (old, other, mine) = (authority(2020), authority(2090), authority(2091));
        let own = own(&mine);
        let Some(Write::Create(_, created)) = decide(&own, None, 1_800_000_000) else { panic!("is created") };
        assert_eq!(created["data"][CLIENT_CA], mine);
        assert_eq!(decide(&own, Some(created.clone()), 1_800_000_000), None, "what is right stays");
        let mut found = created;
        found["data"][CLIENT_CA] = format!("{old}{other}").into();
        found["data"]["requestheader-allowed-names"] = "[\"b\",\"a\"]".into();
        found["data"]["more"] = "x".into();
        let Some(Write::Update(_, updated)) = decide(&own, Some(found), 1_800_000_000) else {
            panic!("is updated")
        };
        assert_eq!(updated["data"][CLIENT_CA], format!("{other}{mine}"));
        assert_eq!(updated["data"]["requestheader-allowed-names"], "[\"b\",\"a\"]");
        assert_eq!(updated["data"]["more"], Value::Null);
    }
}
