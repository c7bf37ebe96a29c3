//! Secret (follows `pkg/registry/core/secret`).

use apimachinery::codec::from_json;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Map, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::configmap::{DATA_SIZE_MAX, decoded_len, immutable_fields, key_complaints};
use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill, object_or_new};
use crate::strategy::{Column, Strategy, keep};
use crate::validation::At;

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

/// Entries a type must have.
const REQUIRED_KEYS: [(&str, &[&str]); 3] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

const COLUMNS: [Column; 4] = [
    NAME,
    column("Type", "string", "What the entries are for."),
    column("Data", "string", "Number of entries."),
    AGE,
];

pub struct Secret;

impl Strategy for Secret {
    /// `stringData` is write-only: it is encoded into `data` before anything else looks.
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("type", Fill::Text("Opaque"))]);
        let Some(Value::Object(texts)) = obj.as_object_mut().and_then(|map| map.remove("stringData")) else {
            return;
        };
        encode_texts(obj, texts);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        if str_at(obj, &["type"]).is_empty() {
            keep(obj, old, "type");
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let data = At::root(obj).get("data");
        let mut size = 0;
        for (key, value) in data.entries() {
            key_complaints(key, &value, &mut errors);
            size += decoded_len(value.text());
        }
        if size > DATA_SIZE_MAX {
            errors.push(Error::too_long(&data.path, DATA_SIZE_MAX));
        }
        by_type(obj, &data, &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("type").check_unchanged(&At::root(old).get("type"), &mut errors);
        errors.extend(immutable_fields(obj, old, &["data"]));
        errors.extend(self.validate(obj));
        errors
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![("type", str_at(obj, &["type"]).to_owned())]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), str_at(obj, &["type"]).into(), At::root(obj).get("data").len().into(), age(obj, now)]
    }
}

fn encode_texts(obj: &mut Value, texts: Map) {
    let Some(data) = object_or_new(obj, "data") else { return };
    for (key, text) in texts {
        data[key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn by_type(obj: &Value, data: &At, errors: &mut ErrorList) {
    let required = |key: &str| Error::required(&data.path.key(key), "");
    let kind = str_at(obj, &["type"]);
    match kind {
        "kubernetes.io/service-account-token"
            if str_at(obj, &["metadata", "annotations", SERVICE_ACCOUNT_NAME]).is_empty() =>
        {
            let path = Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
            errors.push(Error::required(&path, ""));
        }
        "kubernetes.io/basic-auth" if !data.get("username").is_set() && !data.get("password").is_set() => {
            errors.extend(["username", "password"].map(required));
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_empty() => {
            errors.push(required("ssh-privatekey"));
        }
        _ => {}
    }
    for (_, keys) in REQUIRED_KEYS.iter().filter(|(name, _)| *name == kind) {
        for key in *keys {
            match data.field(key) {
                None => errors.push(required(key)),
                Some(value) if key.starts_with(".docker") => docker_config(key, &value, data, errors),
                Some(_) => {}
            }
        }
    }
}

fn docker_config(key: &str, value: &At, data: &At, errors: &mut ErrorList) {
    let bytes = STANDARD.decode(value.text()).unwrap_or_default();
    if let Err(why) = from_json::<Map>(&bytes, "map[string]interface {}") {
        errors.push(Error::invalid(&data.path.key(key), REDACTED, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn string_data_becomes_data() {
        let mut obj = json!({"stringData": {"a": "hello", "b": "x"}, "data": {"a": "AAAA", "c": "AAAA"}});
        Secret.default(&mut obj);
        assert_eq!(obj, json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "eA==", "c": "AAAA"}}));
    }

    #[test]
    fn each_type_has_its_entries() {
        let check = |kind: &str, data: Value, expect: &[&str]| {
            expect_errors(&Secret.validate(&json!({"type": kind, "data": data})), expect);
        };
        check(
            "kubernetes.io/tls",
            json!({}),
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        );
        check("kubernetes.io/basic-auth", json!({"username": ""}), &[]);
        check("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30="}), &[]);
        check(
            "kubernetes.io/dockerconfigjson",
            json!({".dockerconfigjson": "AAAA"}),
            &[
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character '\\x00' looking for",
            ],
        );
        check(
            "kubernetes.io/service-account-token",
            json!({}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
    }

    #[test]
    fn a_secret_keeps_its_type() {
        let errors = Secret.validate_update(&json!({"type": "a"}), &json!({"type": "Opaque"}));
        expect_errors(&errors, &["type: Invalid value: \"a\": field is immutable"]);
    }
}
