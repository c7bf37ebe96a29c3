//! A container's environment: literal values, references, service links, and `$(VAR)` expansion
//! (follows `makeEnvironmentVariables`, `envvars.FromServices` and `third_party/forked/golang/expansion`).

pub mod file;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::core::{ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::volumes::downward;

/// Why a container cannot start yet; both end as `CreateContainerConfigError`.
pub type ConfigError = String;

/// The ConfigMaps and Secrets a container's environment names, as the API had them.
#[derive(Default)]
pub struct Sources {
    /// `None` when the object does not exist.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// The texts of files in volumes, by volume and path; an error when there is none to be read.
    pub files: BTreeMap<(String, String), Result<String, String>>,
}

/// Names of the ConfigMaps and Secrets that `sources` must hold.
pub fn referenced(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for from in &container.env_from {
        config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// Volumes and paths in them of the files that `sources` must hold.
pub fn files(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let sources = container.env.iter().filter_map(|var| var.value_from.as_ref());
    sources.filter_map(|from| from.file_key_ref.as_ref()).map(|f| (f.volume_name.as_str(), f.path.as_str()))
}

/// What the node knows that the environment may ask for.
pub struct Facts<'a> {
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    pub allocatable: &'a downward::Allocatable,
    pub services: &'a [Arc<Service>],
}

/// The whole environment, in order; later entries win.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts<'_>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Environment { services: service_links(pod, facts.services), own: Vec::new() };
    for from in &container.env_from {
        if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional == Some(true);
            let map = found(&sources.config_maps, "configmap", &reference.name, optional)?;
            for (key, value) in map.into_iter().flat_map(|m| &m.data) {
                env.push(format!("{}{key}", from.prefix), value.clone());
            }
        }
        if let Some(reference) = &from.secret_ref {
            let optional = reference.optional == Some(true);
            let secret = found(&sources.secrets, "secret", &reference.name, optional)?;
            for (key, value) in secret.into_iter().flat_map(|s| &s.data) {
                env.push(format!("{}{key}", from.prefix), decode(value)?);
            }
        }
    }
    for var in &container.env {
        match &var.value_from {
            None => {
                let value = expand(&var.value, |name| env.get(name));
                env.push(var.name.clone(), value);
            }
            Some(source) => {
                if let Some(value) = value_from(pod, container, source, sources, facts)? {
                    env.push(var.name.clone(), value);
                }
            }
        }
    }
    Ok(env.finish())
}

struct Environment {
    services: BTreeMap<String, String>,
    own: Vec<(String, String)>,
}

impl Environment {
    fn push(&mut self, name: String, value: String) {
        self.own.retain(|(known, _)| *known != name);
        self.own.push((name, value));
    }

    fn get(&self, name: &str) -> Option<String> {
        let own = self.own.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        own.or_else(|| self.services.get(name)).cloned()
    }

    /// What the container says itself wins over service links.
    fn finish(mut self) -> Vec<(String, String)> {
        for (name, _) in &self.own {
            self.services.remove(name);
        }
        self.own.extend(self.services);
        self.own
    }
}

fn found<'a, T>(
    objects: &'a BTreeMap<String, Option<T>>,
    what: &str,
    name: &str,
    optional: bool,
) -> Result<Option<&'a T>, ConfigError> {
    match objects.get(name).and_then(Option::as_ref) {
        Some(object) => Ok(Some(object)),
        None if optional => Ok(None),
        None => Err(format!("{what} {name:?} not found")),
    }
}

fn decode(value: &str) -> Result<String, ConfigError> {
    let bytes = STANDARD.decode(value).map_err(|e| format!("secret value is not base64: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `None` leaves the variable out: its source is optional and absent.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    facts: &Facts<'_>,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, facts.pod_ips, facts.host_ips).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), resource, facts.allocatable).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let map = found(&sources.config_maps, "configmap", &key.name, optional)?;
        let value = map.and_then(|m| m.data.get(&key.key)).cloned();
        return missing_key(value, optional, &key.key, "ConfigMap", pod, &key.name);
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let secret = found(&sources.secrets, "secret", &key.name, optional)?;
        let value = secret.and_then(|s| s.data.get(&key.key)).map(|v| decode(v)).transpose()?;
        return missing_key(value, optional, &key.key, "Secret", pod, &key.name);
    }
    if let Some(key) = &source.file_key_ref {
        return file_value(key, sources);
    }
    Ok(Some(String::new()))
}

fn file_value(key: &FileKeySelector, sources: &Sources) -> Result<Option<String>, ConfigError> {
    let FileKeySelector { volume_name, path, key, optional } = key;
    let text = sources
        .files
        .get(&(volume_name.clone(), path.clone()))
        .ok_or_else(|| format!("cannot find the volume {volume_name:?} referenced by FileKeyRef"))?;
    let value = text.as_ref().map_err(Clone::clone).and_then(|text| file::value(text, key));
    match value {
        Err(why) => {
            tracing::debug!(path, why, "environment file cannot be read");
            Err("couldn't parse env file".to_owned())
        }
        Ok(value) if value.is_empty() && *optional == Some(true) => Ok(None),
        Ok(value) if value.is_empty() => {
            Err(format!("environment variable key {key:?} not found in file {path:?}"))
        }
        Ok(value) => Ok(Some(value)),
    }
}

fn missing_key(
    value: Option<String>,
    optional: bool,
    key: &str,
    what: &str,
    pod: &Pod,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    match value {
        None if !optional => {
            Err(format!("couldn't find key {key} in {what} {}/{name}", pod.metadata.namespace))
        }
        value => Ok(value),
    }
}

/// Docker-style variables for the services of the pod's namespace, and always for `default/kubernetes`.
fn service_links(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod.spec.enable_service_links != Some(false);
    let mut vars = BTreeMap::new();
    for service in services {
        let master = service.metadata.namespace == "default" && service.metadata.name == "kubernetes";
        let near = links && service.metadata.namespace == pod.metadata.namespace;
        let ip = &service.spec.cluster_ip;
        if !(master || near) || ip.is_empty() || ip == "None" {
            continue;
        }
        service_variables(service, &mut vars);
    }
    vars
}

fn service_variables(service: &Service, vars: &mut BTreeMap<String, String>) {
    let name = service.metadata.name.to_uppercase().replace('-', "_");
    let ip = &service.spec.cluster_ip;
    let Some(first) = service.spec.ports.first() else { return };
    vars.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    vars.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in service.spec.ports.iter().filter(|p| !p.name.is_empty()) {
        vars.insert(
            format!("{name}_SERVICE_PORT_{}", port.name.to_uppercase().replace('-', "_")),
            port.port.to_string(),
        );
    }
    let url = |protocol: &str, port: u16| format!("{}://{ip}:{port}", protocol.to_lowercase());
    let protocol = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
    vars.insert(format!("{name}_PORT"), url(&protocol(&first.protocol), first.port));
    for port in &service.spec.ports {
        let protocol = protocol(&port.protocol);
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        vars.insert(prefix.clone(), url(&protocol, port.port));
        vars.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        vars.insert(format!("{prefix}_PORT"), port.port.to_string());
        vars.insert(format!("{prefix}_ADDR"), ip.clone());
    }
}

/// `expand` where every name must be known (upstream: `ExpandContainerVolumeMounts`).
pub fn expand_all(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(text, |name| {
        lookup(name).or_else(|| {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            None
        })
    });
    match missing.into_inner() {
        None => Ok(expanded),
        Some(name) => Err(format!("missing value for {name:?}")),
    }
}

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar sign; everything else stays.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(name) =
            rest.strip_prefix('(').and_then(|r| r.split_once(')')).map(|(name, _)| name)
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = &rest[name.len() + 2..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn references_expand_and_dollars_escape() {
        let check = |text: &str, expect: &str| {
            assert_eq!(expand(text, |name| (name == "A").then(|| "1".to_owned())), expect);
        };
        check("x$(A)y", "x1y");
        check("$$(A)", "$(A)");
        check("$(B)", "$(B)");
        check("$(A", "$(A");
        check("a$", "a$");
        check("$A $$", "$A $");
    }

    #[test]
    fn a_path_with_an_unknown_name_is_refused() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(expand_all("x$(A)", lookup), Ok("x1".to_owned()));
        assert_eq!(expand_all("$(B)$(C)", lookup).expect_err("unknown"), "missing value for \"B\"");
    }

    fn env_of(
        container: apimachinery::Value,
        sources: &Sources,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let pod: Pod = apimachinery::from_value(
            json!({"metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}},
            "spec": {"enableServiceLinks": false, "containers": [container]}}),
        )
        .expect("a pod");
        let service: Service =
            apimachinery::from_value(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
            .expect("a service");
        let services = [Arc::new(service)];
        let allocatable = downward::Allocatable::default();
        let facts = Facts {
            pod_ips: &["10.1.0.2".to_owned()],
            host_ips: &["192.0.2.1".to_owned()],
            allocatable: &allocatable,
            services: &services,
        };
        environment(&pod, &pod.spec.containers[0], sources, &facts)
    }

    #[test]
    fn values_come_from_where_they_are_said_to() {
        let mut sources = Sources::default();
        let map: ConfigMap =
            apimachinery::from_value(json!({"data": {"k": "v", "l": "w"}})).expect("a config map");
        let secret: Secret = apimachinery::from_value(json!({"data": {"s": "cGFzcw=="}})).expect("a secret");
        sources.config_maps.insert("m".into(), Some(map));
        sources.secrets.insert("z".into(), Some(secret));
        let env = env_of(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}], "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(P_k)"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "z", "key": "s"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]}),
            &sources,
        )
        .expect("complete");
        let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!([get("P_k"), get("P_l"), get("B")], [Some("v"), Some("w"), Some("1v")]);
        assert_eq!([get("S"), get("IP"), get("L")], [Some("pass"), Some("10.1.0.2"), Some("b")]);
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.0.0.1"));
        assert_eq!(get("KUBERNETES_PORT_443_TCP"), Some("tcp://10.0.0.1:443"));
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
    }

    #[test]
    fn a_file_in_a_volume_gives_values() {
        let mut sources = Sources::default();
        sources.files.insert(("v".into(), "f".into()), Ok("K='1'\n".to_owned()));
        let var = |volume: &str, key: &str, optional: bool| {
            let reference = json!({"volumeName": volume, "path": "f", "key": key, "optional": optional});
            let env = env_of(
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fileKeyRef": reference}}]}),
                &sources,
            );
            env.map(|env| env.into_iter().find(|(name, _)| name == "A").map(|(_, value)| value))
        };
        assert_eq!(var("v", "K", false), Ok(Some("1".to_owned())));
        assert_eq!(var("v", "J", true), Ok(None));
        assert_eq!(
            var("v", "J", false),
            Err("environment variable key \"J\" not found in file \"f\"".to_owned())
        );
        assert_eq!(
            var("w", "K", true),
            Err("cannot find the volume \"w\" referenced by FileKeyRef".to_owned())
        );
    }

    #[test]
    fn a_missing_source_is_named_unless_optional() {
        let required = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]});
        assert_eq!(env_of(required, &Sources::default()).expect_err("missing"), "configmap \"m\" not found");
        let optional = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": true}}}]});
        assert!(env_of(optional, &Sources::default()).expect("optional").iter().all(|(name, _)| name != "A"));
    }
}
