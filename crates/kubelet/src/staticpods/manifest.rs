//! A text as static pods (follows `applyDefaults`, `tryDecodeSinglePod` and `tryDecodePodList`). Pure.

use std::path::Path;

use api::catalogue::{self, Kind};
use api::core::pod::resources::qos_class;
use api::schema::type_id;
use apimachinery::codec::{self, Format, Strictness, decode_untyped};
use apimachinery::meta::str_at;
use apimachinery::time::format_time;
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::{HASH, SEEN, SOURCE, StaticPod};

/// What makes a file no static pod; the texts are upstream's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("couldn't parse as pod({0}), please check config file")]
    Decode(String),
    #[error("invalid pod: name is needed for the pod")]
    Nameless,
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("static pods may not reference {0}")]
    Refers(&'static str),
}

const DEFAULT_NAMESPACE: &str = "default";

/// Where a text comes from. It is part of what a pod's uid is made of: one text in two files is two pods.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    File(&'a Path),
    Url(&'a str),
}

impl Origin<'_> {
    /// What the pod's annotation says of it.
    fn source(self) -> &'static str {
        match self {
            Origin::File(_) => "file",
            Origin::Url(_) => "http",
        }
    }
}

/// Of which node the pods are, from where, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub origin: Origin<'a>,
    pub node_name: &'a str,
    pub now: Timestamp,
}

/// Reads one pod, in YAML or JSON.
pub fn parse(text: &[u8], context: Context<'_>) -> Result<StaticPod, Error> {
    static_pod(read(text)?, context)
}

/// Reads a pod or a list of pods; if one of them cannot be run, none is.
pub fn parse_any(text: &[u8], context: Context<'_>) -> Result<Vec<StaticPod>, Error> {
    let mut object = read(text)?;
    if type_of(&object) != ("v1", "PodList") {
        return Ok(vec![static_pod(object, context)?]);
    }
    let listed = match object["items"].take() {
        Value::Array(pods) => pods,
        _ => Vec::new(),
    };
    // Lists say once for all what they are lists of.
    let of_list = |mut pod: Value| {
        let is_named = type_of(&pod) != ("", "");
        if let Some(fields) = pod.as_object_mut().filter(|_| !is_named) {
            fields.extend([("apiVersion".to_owned(), "v1".into()), ("kind".to_owned(), "Pod".into())]);
        }
        static_pod(pod, context)
    };
    listed.into_iter().map(of_list).collect()
}

fn read(text: &[u8]) -> Result<Value, Error> {
    decode_untyped(Format::Yaml, text).map(|(object, _)| object).map_err(undecodable)
}

fn undecodable(error: codec::Error) -> Error {
    Error::Decode(error.to_string())
}

fn type_of(object: &Value) -> (&str, &str) {
    (str_at(object, &["apiVersion"]), str_at(object, &["kind"]))
}

fn static_pod(object: Value, context: Context<'_>) -> Result<StaticPod, Error> {
    let kind = catalogue::by_kind("", "v1", "Pod").expect("the catalogue has pods");
    let mut object = decode(object, kind)?;
    if str_at(&object, &["metadata", "name"]).is_empty() {
        return Err(Error::Nameless);
    }
    if let Some(refers) = api_reference(&object["spec"]) {
        return Err(Error::Refers(refers));
    }
    adopt(&mut object, context);
    let errors = kind.validate(&object);
    if !errors.is_empty() {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Error::Invalid(told.join(", ")));
    }
    let pod = apimachinery::from_value(object.clone()).map_err(|error| Error::Decode(error.to_string()))?;
    Ok(StaticPod { pod: std::sync::Arc::new(pod), object })
}

fn decode(object: Value, kind: &Kind) -> Result<Value, Error> {
    let (version, name) = type_of(&object);
    if (version, name) != ("v1", "Pod") {
        return Err(Error::Decode(format!("it is a {name} of {version}")));
    }
    let root = type_id(kind.type_name);
    let decoded = api::schema().decode_value(root, object, Strictness::Ignore).map_err(undecodable)?;
    let mut object = decoded.value;
    api::schema().default(root, &mut object);
    kind.default(&mut object);
    Ok(object)
}

/// Makes the pod this node's.
fn adopt(object: &mut Value, context: Context<'_>) {
    let Context { origin, node_name, now } = context;
    let own = str_at(object, &["metadata", "uid"]).to_owned();
    let uid = if own.is_empty() { hash(object, context) } else { own };
    let name = format!("{}-{}", str_at(object, &["metadata", "name"]), node_name.to_lowercase());
    let metadata = &mut object["metadata"];
    metadata["name"] = name.into();
    if str_at(metadata, &["namespace"]).is_empty() {
        metadata["namespace"] = DEFAULT_NAMESPACE.into();
    }
    metadata["uid"] = uid.as_str().into();
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    for (key, value) in [(HASH, uid), (SOURCE, origin.source().to_owned()), (SEEN, format_time(now))] {
        metadata["annotations"][key] = value.into();
    }
    let spec = &mut object["spec"];
    spec["nodeName"] = node_name.into();
    if let Origin::File(_) = origin {
        tolerate_all(spec);
    }
    object["status"] = json!({"phase": "Pending", "qosClass": qos_class(object)});
}

/// A node's trouble does not end the pods of its files.
fn tolerate_all(spec: &mut Value) {
    let toleration = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec["tolerations"].as_array_mut() {
        Some(tolerations) if tolerations.contains(&toleration) => {}
        Some(tolerations) => tolerations.push(toleration),
        None => spec["tolerations"] = json!([toleration]),
    }
}

/// FNV-1a of 128 bits over the pod and where it stands.
fn hash(object: &Value, context: Context<'_>) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let text = match context.origin {
        Origin::File(file) => format!("{object}host:{}file:{}", context.node_name, file.display()),
        Origin::Url(url) => format!("{object}url:{url}"),
    };
    let sum = text.bytes().fold(OFFSET, |sum, byte| (sum ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{sum:032x}")
}

/// What of the API the pod needs: it must run without (upstream: `HasAPIObjectReference`).
fn api_reference(spec: &Value) -> Option<&'static str> {
    if !str_at(spec, &["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if any(spec, "imagePullSecrets", |_| true) || in_containers(spec, "secretRef", "secretKeyRef") {
        return Some("secrets");
    }
    if in_containers(spec, "configMapRef", "configMapKeyRef") {
        return Some("configmaps");
    }
    if any(spec, "resourceClaims", |_| true) {
        return Some("resourceclaims");
    }
    items(spec, "volumes").find_map(volume_reference)
}

fn volume_reference(volume: &Value) -> Option<&'static str> {
    const SOURCES: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const PROJECTED: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let named = |value: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(field, _)| value.get(*field).is_some()).map(|(_, what)| *what)
    };
    named(volume, &SOURCES)
        .or_else(|| items(&volume["projected"], "sources").find_map(|source| named(source, &PROJECTED)))
}

/// Whether a container takes its environment from such an object, as a whole or by key.
fn in_containers(spec: &Value, whole: &str, by_key: &str) -> bool {
    ["initContainers", "containers", "ephemeralContainers"].iter().any(|list| {
        any(spec, list, |container| {
            any(container, "envFrom", |source| source.get(whole).is_some())
                || any(container, "env", |variable| variable["valueFrom"].get(by_key).is_some())
        })
    })
}

fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn any(value: &Value, field: &str, holds: impl Fn(&Value) -> bool) -> bool {
    items(value, field).any(holds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(origin: Origin<'_>) -> Context<'_> {
        Context { origin, node_name: "node-a", now: Timestamp::UNIX_EPOCH }
    }

    fn read(text: &str, file: &str) -> Result<StaticPod, Error> {
        parse(text.as_bytes(), context(Origin::File(Path::new(file))))
    }

    fn manifest(spec: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{{name: a, image: b}}]\n{spec}"
        )
    }

    #[test]
    fn a_pod_becomes_the_nodes_own() {
        let found = read(&manifest(""), "/etc/a.yaml").expect("a pod");
        let pod = &found.pod;
        assert_eq!(found.name().to_string(), "default/web-node-a");
        assert_eq!((pod.spec.node_name.as_str(), pod.spec.restart_policy.as_str()), ("node-a", "Always"));
        assert_eq!(pod.metadata.annotations[HASH], pod.metadata.uid);
        assert_eq!(pod.metadata.annotations[SOURCE], "file");
        assert!(pod.spec.tolerations.iter().any(|t| t.effect == "NoExecute" && t.operator == "Exists"));
        assert!(super::super::is_static(pod));
    }

    #[test]
    fn the_uid_says_what_the_pod_is_and_where_it_stands() {
        let uid = |text: &str, file: &str| read(text, file).expect("a pod").uid().to_owned();
        let text = manifest("");
        assert_eq!(uid(&text, "a"), uid(&text, "a"));
        assert_ne!(uid(&text, "a"), uid(&text, "b"));
        assert_ne!(uid(&text, "a"), uid(&manifest("  hostNetwork: true\n"), "a"));
    }

    #[test]
    fn what_needs_the_api_is_no_static_pod() {
        let check = |spec: &str, expect: &'static str| {
            assert_eq!(read(&manifest(spec), "a").err(), Some(Error::Refers(expect)), "{spec}");
        };
        check("  serviceAccountName: x\n", "serviceaccounts");
        check("  imagePullSecrets: [{name: x}]\n", "secrets");
        check("  volumes: [{name: v, configMap: {name: x}}]\n", "configmaps (via configmap volumes)");
        check(
            "  volumes: [{name: v, projected: {sources: [{secret: {name: x}}]}}]\n",
            "secrets (via projected volumes)",
        );
        check(
            "  initContainers: [{name: i, image: b, envFrom: [{configMapRef: {name: x}}]}]\n",
            "configmaps",
        );
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        assert_eq!(read("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "a").err(), Some(Error::Nameless));
        assert!(matches!(read("apiVersion: v1\nkind: Service\n", "a"), Err(Error::Decode(_))));
        assert!(matches!(read("}", "a"), Err(Error::Decode(_))));
        let bad = manifest("").replace("name: a,", "name: A_,");
        assert!(matches!(read(&bad, "a"), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_url_describes_one_pod_or_many_all_or_none() {
        let found = |text: &str| parse_any(text.as_bytes(), context(Origin::Url("http://x/pods")));
        let one = found(&manifest("")).expect("a pod");
        assert_eq!(one[0].pod.metadata.annotations[SOURCE], "http");
        assert!(one[0].pod.spec.tolerations.is_empty());
        let pod = |name: &str| {
            format!("{{metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: b}}]}}}}")
        };
        let list = |second: &str| {
            format!("{{apiVersion: v1, kind: PodList, items: [{}, {}]}}", pod("a"), pod(second))
        };
        let names: Vec<String> =
            found(&list("b")).expect("pods").iter().map(|pod| pod.name().to_string()).collect();
        assert_eq!(names, ["default/a-node-a", "default/b-node-a"]);
        assert_eq!(found(&list("''")).err(), Some(Error::Nameless));
        assert_eq!(found("{apiVersion: v1, kind: PodList}").map(|pods| pods.len()), Ok(0));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,200}") {
            drop(parse_any(text.as_bytes(), context(Origin::Url("u"))));
            drop(read(&text, "a"));
        }
    }
}
