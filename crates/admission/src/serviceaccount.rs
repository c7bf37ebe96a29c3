//! ServiceAccount: every pod runs as a service account that exists, and gets a token of it mounted where client
//! libraries look.

use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const DEFAULT_ACCOUNT: &str = "default";
const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Prefix of the token volume's name.
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and some seconds by which upstream recognises tokens that it asked for itself.
const TOKEN_EXPIRATION_SECONDS: i64 = 3607;
/// 0644.
const VOLUME_MODE: i64 = 420;

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        if !creates_pod(request) || !object["spec"].is_object() || is_mirror(object) {
            return Ok(());
        }
        let name = match str_at(object, &["spec", "serviceAccountName"]) {
            "" => DEFAULT_ACCOUNT.to_owned(),
            name => name.to_owned(),
        };
        let account = find_account(request, object, &name, world)?;
        let spec = &mut object["spec"];
        spec["serviceAccountName"] = name.as_str().into();
        // The field's former name, which upstream still fills in.
        spec["serviceAccount"] = name.into();
        if mounts_token(spec, &account) {
            mount_token(spec, world);
        }
        let has_pull_secrets = spec["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
        if !has_pull_secrets && account["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty()) {
            spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        if !creates_pod(request) {
            return Ok(());
        }
        if is_mirror(object) {
            return check_mirror(request, object);
        }
        let name = str_at(object, &["spec", "serviceAccountName"]);
        if name.is_empty() {
            let pod = str_at(object, &["metadata", "name"]);
            let reason = format!("no service account specified for pod {}/{pod}", request.namespace);
            return Err(request.forbidden(object, reason));
        }
        find_account(request, object, name, world).map(drop)
    }
}

/// Whether a new pod would be refused only because the default account, which its controller makes for every
/// namespace, is not there yet. Upstream waits a second or two for it.
pub fn awaits_default_account(request: &Request<'_>, pod: &Value, world: &dyn World) -> bool {
    let named = str_at(pod, &["spec", "serviceAccountName"]);
    creates_pod(request)
        && !is_mirror(pod)
        && matches!(named, "" | DEFAULT_ACCOUNT)
        && world.get("serviceaccounts", request.namespace, DEFAULT_ACCOUNT).is_none()
        && world.get("namespaces", "", request.namespace).is_some()
}

fn creates_pod(request: &Request<'_>) -> bool {
    request.is_for("", "pods") && request.operation == Operation::Create
}

/// A mirror pod shows a pod that its node runs by itself; it is not changed.
fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR_POD_ANNOTATION].is_null()
}

fn find_account(
    request: &Request<'_>,
    pod: &Value,
    name: &str,
    world: &dyn World,
) -> Result<std::sync::Arc<Value>, Status> {
    world.get("serviceaccounts", request.namespace, name).ok_or_else(|| {
        let reason = format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            request.namespace
        );
        request.forbidden(pod, reason)
    })
}

fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Status> {
    let refuse = |reason: &str| Err(request.forbidden(pod, reason));
    if !str_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    if refers_to_secrets(&pod["spec"]) {
        return refuse("a mirror pod may not reference secrets");
    }
    let sources = list(&pod["spec"]["volumes"]).iter().flat_map(|v| list(&v["projected"]["sources"]));
    if sources.into_iter().any(|source| !source["serviceAccountToken"].is_null()) {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn refers_to_secrets(spec: &Value) -> bool {
    let in_container = |container: &Value| {
        list(&container["env"]).iter().any(|env| !env["valueFrom"]["secretKeyRef"].is_null())
            || list(&container["envFrom"]).iter().any(|source| !source["secretRef"].is_null())
    };
    let in_volume = |volume: &Value| {
        !volume["secret"].is_null()
            || list(&volume["projected"]["sources"]).iter().any(|source| !source["secret"].is_null())
    };
    !list(&spec["imagePullSecrets"]).is_empty()
        || ["initContainers", "containers"].iter().any(|kind| list(&spec[*kind]).iter().any(in_container))
        || list(&spec["volumes"]).iter().any(in_volume)
}

/// The pod's own word counts before the account's.
fn mounts_token(spec: &Value, account: &Value) -> bool {
    let says = |object: &Value| object["automountServiceAccountToken"].as_bool();
    says(spec).or(says(account)).unwrap_or(true)
}

/// Mounts the token into every container that has nothing at its place yet.
fn mount_token(spec: &mut Value, world: &dyn World) {
    let existing = list(&spec["volumes"])
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", world.random_suffix()));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut is_needed = false;
    for kind in ["initContainers", "containers"] {
        for container in
            spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten().filter(|c| c.is_object())
        {
            let mounts = &mut container["volumeMounts"];
            if !list(mounts).iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                push(mounts, mount.clone());
                is_needed = true;
            }
        }
    }
    if is_needed && !has_volume {
        push(&mut spec["volumes"], token_volume(&name));
    }
}

fn push(items: &mut Value, item: Value) {
    match items {
        Value::Array(items) => items.push(item),
        none => *none = json!([item]),
    }
}

/// Token, certificate authority and namespace, as client libraries expect them.
fn token_volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": VOLUME_MODE, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_EXPIRATION_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}}
    ]}})
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    fn world(account: Value) -> Objects {
        let mut object = json!({"metadata": {"name": "default", "namespace": "ns"}});
        for (key, value) in account.as_object().expect("an object") {
            object[key] = value.clone();
        }
        Objects::default().with("serviceaccounts", object)
    }

    fn create(pod: Value, world: &Objects) -> Result<Value, String> {
        let user = UserInfo::anonymous();
        run(&ServiceAccount, &request(&user, Operation::Create, "pods", ""), pod, world)
    }

    #[test]
    fn a_pod_gets_the_default_account_and_its_token() {
        let containers = json!([
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}
        ]);
        let found = create(pod(json!({"containers": containers})), &world(json!({}))).expect("passes");
        let spec = &found["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        let mount = json!({"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH});
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(spec["volumes"], json!([token_volume("kube-api-access-abcde")]));
        assert_eq!(create(found.clone(), &world(json!({}))), Ok(found));
    }

    #[test]
    fn no_token_where_pod_or_account_refuse_it() {
        let off = json!({"automountServiceAccountToken": false});
        let bare = json!({"containers": [{"name": "a"}]});
        let volumes = |spec: Value, account: &Value| {
            create(pod(spec), &world(account.clone())).expect("passes")["spec"]["volumes"].clone()
        };
        assert_eq!(volumes(bare.clone(), &off), Value::Null);
        let mut wants = bare;
        wants["automountServiceAccountToken"] = true.into();
        assert!(volumes(wants, &off).is_array());
    }

    #[test]
    fn pull_secrets_come_from_the_account_unless_the_pod_has_its_own() {
        let account = json!({"imagePullSecrets": [{"name": "registry"}]});
        let secrets = |spec: Value| {
            create(pod(spec), &world(account.clone())).expect("passes")["spec"]["imagePullSecrets"].clone()
        };
        assert_eq!(secrets(json!({})), json!([{"name": "registry"}]));
        assert_eq!(secrets(json!({"imagePullSecrets": [{"name": "own"}]})), json!([{"name": "own"}]));
    }

    #[test]
    fn an_account_that_is_not_there_is_named() {
        assert_eq!(
            create(pod(json!({"serviceAccountName": "sa"})), &world(json!({}))),
            Err("pods \"p\" is forbidden: error looking up service account ns/sa: serviceaccount \"sa\" not found".to_owned())
        );
    }

    #[test]
    fn only_a_default_account_in_the_making_is_worth_waiting_for() {
        let user = UserInfo::anonymous();
        let request = request(&user, Operation::Create, "pods", "");
        let namespace = || Objects::default().with("namespaces", json!({"metadata": {"name": "ns"}}));
        let account = json!({"metadata": {"name": "default", "namespace": "ns"}});
        let named = pod(json!({"serviceAccountName": "sa"}));
        assert!(awaits_default_account(&request, &pod(json!({})), &namespace()));
        assert!(!awaits_default_account(&request, &named, &namespace()));
        assert!(!awaits_default_account(&request, &pod(json!({})), &Objects::default()));
        let made = namespace().with("serviceaccounts", account);
        assert!(!awaits_default_account(&request, &pod(json!({})), &made));
    }

    #[test]
    fn a_mirror_pod_refers_to_nothing() {
        let mirror = |spec: Value| {
            let mut pod = pod(spec);
            pod["metadata"]["annotations"] = json!({MIRROR_POD_ANNOTATION: "x"});
            create(pod, &Objects::default()).map(drop)
        };
        assert_eq!(mirror(json!({"containers": [{"name": "a"}]})), Ok(()));
        let refused = |what: &str| Err(format!("pods \"p\" is forbidden: a mirror pod may not {what}"));
        assert_eq!(mirror(json!({"serviceAccountName": "x"})), refused("reference service accounts"));
        assert_eq!(mirror(json!({"volumes": [{"secret": {}}]})), refused("reference secrets"));
        let token = json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]});
        assert_eq!(mirror(token), refused("use ServiceAccountToken volume projections"));
    }
}
