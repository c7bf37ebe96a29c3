//! Which hosts are asked for a registry's images, and how each is spoken to: k3s's `registries.yaml`.
//!
//! Mirrors are asked in their order, the registry itself last. What is configured for a host under `configs` holds
//! wherever the host stands. A password goes only to the host it was given for: that of a pull secret to the registry
//! which the image names, those configured to their own hosts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use http::Uri;
use regex::Regex;
use serde::Deserialize;

use super::auth::Credentials;
use super::tls::TlsFiles;
use crate::images::manifest::null_as_default;
use crate::images::{Error, Reference};

const DOCKER_DOMAIN: &str = "docker.io";
const DOCKER_REGISTRY: &str = "registry-1.docker.io";
/// Stands for every registry, or every host, that has no entry of its own.
const ANY: &str = "*";
/// Where the distribution API begins; an endpoint that has a path of its own says so itself.
const API_PATH: &str = "/v2";

/// What the file says; an absent file says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// By the registry of an image's name.
    #[serde(deserialize_with = "null_as_default")]
    mirrors: BTreeMap<String, Option<Mirror>>,
    /// By host, with its port if that is not the scheme's.
    #[serde(deserialize_with = "null_as_default")]
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Vec<String>,
    /// Patterns and what takes the place of what they match in a repository; the first that changes it counts.
    rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostConfig {
    auth: Option<Auth>,
    tls: TlsFiles,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    username: String,
    password: String,
    /// base64 of `username:password`.
    auth: String,
    /// Sent as a bearer token as it is.
    identity_token: String,
}

/// One host that may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Up to the repository: `https://host:5000/v2`.
    pub base: String,
    /// As people call it, for what they are told.
    pub host: String,
    pub repository: String,
    /// The registry that a mirror stands in for, which the mirror is told.
    pub namespace: Option<String>,
    pub credentials: Credentials,
    pub tls: TlsFiles,
}

impl Endpoint {
    /// The address of something of the repository, such as `manifests/latest`.
    pub fn url(&self, what: &str) -> String {
        let namespace = self.namespace.as_ref().map(|name| format!("?ns={name}")).unwrap_or_default();
        format!("{}/{}/{what}{namespace}", self.base, self.repository)
    }
}

impl Registries {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Registries, Error> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registries::default()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        Registries::parse(&text).map_err(|reason| Error::Registries { path: path.to_owned(), reason })
    }

    fn parse(text: &[u8]) -> Result<Registries, String> {
        if text.trim_ascii().is_empty() {
            return Ok(Registries::default());
        }
        let read: Registries = serde_saphyr::from_slice(text).map_err(|error| error.to_string())?;
        for mirror in read.mirrors.values().flatten() {
            mirror.endpoint.iter().try_for_each(|endpoint| base_of(endpoint).map(drop))?;
            for pattern in mirror.rewrite.keys() {
                Regex::new(pattern).map_err(|error| format!("rewrite {pattern:?}: {error}"))?;
            }
        }
        Ok(read)
    }

    /// The hosts to ask for an image, in order. `secret` is what the pod's pull secrets hold for the image.
    pub fn endpoints(&self, image: &Reference, secret: &Credentials) -> Vec<Endpoint> {
        let mirror = entry(&self.mirrors, &image.domain).and_then(Option::as_ref);
        let mut found: Vec<Endpoint> =
            mirror.into_iter().flat_map(|mirror| self.mirrors_of(mirror, image)).collect();
        let own = self.own(image, secret);
        if found.iter().all(|endpoint| endpoint.base != own.base) {
            found.push(own);
        }
        found
    }

    fn mirrors_of(&self, mirror: &Mirror, image: &Reference) -> Vec<Endpoint> {
        let repository = rewritten(&mirror.rewrite, &image.path);
        let bases = mirror.endpoint.iter().filter_map(|endpoint| base_of(endpoint).ok());
        bases
            .map(|(host, base)| {
                let config = self.config(&host);
                let is_own = host == host_of(image);
                Endpoint {
                    base,
                    repository: repository.clone(),
                    namespace: (!is_own).then(|| image.domain.clone()),
                    credentials: config.credentials(),
                    tls: config.tls,
                    host,
                }
            })
            .collect()
    }

    /// The registry that the image names.
    fn own(&self, image: &Reference, secret: &Credentials) -> Endpoint {
        let host = host_of(image);
        let config = self.config(host);
        let scheme = if is_local(host) { "http" } else { "https" };
        let credentials = if secret.is_empty() { config.credentials() } else { secret.clone() };
        Endpoint {
            base: format!("{scheme}://{host}{API_PATH}"),
            host: image.domain.clone(),
            repository: image.path.clone(),
            namespace: None,
            credentials,
            tls: config.tls,
        }
    }

    fn config(&self, host: &str) -> HostConfig {
        // Users write docker.io where the registry's own host is meant.
        let alias = (host == DOCKER_REGISTRY).then(|| self.configs.get(DOCKER_DOMAIN)).flatten();
        alias.or_else(|| entry(&self.configs, host)).cloned().unwrap_or_default()
    }
}

impl HostConfig {
    fn credentials(&self) -> Credentials {
        let Some(auth) = &self.auth else { return Credentials::default() };
        if let Some(found) = Credentials::from_auth(&auth.auth) {
            return found;
        }
        Credentials {
            username: auth.username.clone(),
            password: auth.password.clone(),
            registry_token: Some(auth.identity_token.clone()).filter(|token| !token.is_empty()),
        }
    }
}

fn entry<'a, T>(table: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    table.get(name).or_else(|| table.get(ANY))
}

fn host_of(image: &Reference) -> &str {
    if image.domain == DOCKER_DOMAIN { DOCKER_REGISTRY } else { &image.domain }
}

/// Host and base of an endpoint as users write it: `mirror:5000`, `https://mirror`, `https://mirror/v2/proxy`.
fn base_of(endpoint: &str) -> Result<(String, String), String> {
    let wrong = |why: &str| format!("endpoint {endpoint:?}: {why}");
    let with_scheme = match endpoint.split_once("://") {
        Some(_) => endpoint.to_owned(),
        None if is_local(endpoint.split('/').next().unwrap_or_default()) => format!("http://{endpoint}"),
        None => format!("https://{endpoint}"),
    };
    let uri: Uri = with_scheme.parse().map_err(|_| wrong("this is no URL"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("only http and https are spoken"));
    }
    let authority = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = Some(uri.path().trim_end_matches('/')).filter(|path| !path.is_empty()).unwrap_or(API_PATH);
    Ok((authority.clone(), format!("{scheme}://{authority}{path}")))
}

/// Registries on this machine are spoken to without TLS.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.starts_with("127.") || name == "[::1]"
}

fn rewritten(rules: &BTreeMap<String, String>, repository: &str) -> String {
    let changed = rules.iter().find_map(|(pattern, replacement)| {
        let pattern = Regex::new(pattern).ok()?;
        let result = pattern.replace_all(repository, replacement);
        (result != repository).then(|| result.into_owned())
    });
    changed.unwrap_or_else(|| repository.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "second.example/proxy/v2"]
    rewrite: {"^library/(.*)": "cached/$1"}
  plain.example: {endpoint: ["http://plain.example:80"]}
  own.example: {endpoint: ["https://own.example"]}
  empty.example:
  "*": {endpoint: ["localhost:5001"]}
configs:
  "mirror.example:5000":
    auth: {username: u, password: p}
    tls: {ca_file: /ca.pem, insecure_skip_verify: true}
  docker.io: {auth: {auth: "YTpi"}}
"#;

    fn endpoints(image: &str, secret: &Credentials) -> Vec<Endpoint> {
        let registries = Registries::parse(FILE.as_bytes()).unwrap();
        registries.endpoints(&Reference::parse(image).unwrap(), secret)
    }

    fn urls(image: &str) -> Vec<String> {
        endpoints(image, &Credentials::default()).iter().map(|endpoint| endpoint.url("x")).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_registry_itself_last() {
        let expect = [
            "https://mirror.example:5000/v2/cached/nginx/x?ns=docker.io",
            "https://second.example/proxy/v2/cached/nginx/x?ns=docker.io",
            "https://registry-1.docker.io/v2/library/nginx/x",
        ];
        assert_eq!(urls("nginx"), expect);
        assert_eq!(urls("org/app")[0], "https://mirror.example:5000/v2/org/app/x?ns=docker.io");
    }

    #[test]
    fn what_has_no_entry_of_its_own_has_that_of_the_star() {
        let expect = ["http://localhost:5001/v2/app/x?ns=q.example", "https://q.example/v2/app/x"];
        assert_eq!(urls("q.example/app"), expect);
        assert_eq!(urls("empty.example/app"), ["https://empty.example/v2/app/x"], "an empty entry is one");
    }

    #[test]
    fn a_registry_among_its_own_mirrors_is_asked_once() {
        assert_eq!(urls("own.example/app"), ["https://own.example/v2/app/x"]);
    }

    #[test]
    fn a_password_goes_only_to_the_host_it_was_given_for() {
        let user = |credentials: &Credentials| credentials.username.clone();
        let found = endpoints("nginx", &Credentials::default());
        assert_eq!(found.iter().map(|e| user(&e.credentials)).collect::<Vec<_>>(), ["u", "", "a"]);
        let secret = Credentials { username: "secret".into(), ..Credentials::default() };
        let found = endpoints("nginx", &secret);
        assert_eq!(found.iter().map(|e| user(&e.credentials)).collect::<Vec<_>>(), ["u", "", "secret"]);
    }

    #[test]
    fn a_host_has_its_own_authority() {
        let found = endpoints("nginx", &Credentials::default());
        assert_eq!(found[0].tls.ca_file.as_deref(), Some(Path::new("/ca.pem")));
        assert!(found[0].tls.insecure_skip_verify);
        assert_eq!(found[2].tls, TlsFiles::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, expect) in [
            ("mirror: {}", "mirror"),
            ("mirrors: {a: {endpoint: [\"ftp://a\"]}}", "only http and https"),
            ("mirrors: {a: {endpoint: [\"https://\"]}}", "endpoint"),
            ("mirrors: {a: {rewrite: {\"(\": b}}}", "rewrite"),
            ("mirrors: [", ""),
        ] {
            let error = Registries::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        }
        for empty in ["", "\n", "mirrors:\nconfigs:\n"] {
            assert!(Registries::parse(empty.as_bytes()).is_ok(), "{empty:?}");
        }
    }
}
