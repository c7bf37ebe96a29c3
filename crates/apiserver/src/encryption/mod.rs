//! Encryption at rest: what of the cluster's state lies on disk in which form. It stands at the store's boundary
//! (`store::Transformer`), so that memory, watches and requests know nothing of it. What is written reads back with
//! upstream, and the reverse. Follows `encryptionconfig` and `value.NewPrefixTransformers`.

mod cipher;
mod config;
mod kms;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::GroupResource;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use store::{Freshness, Identity, TransformError, Transformer};

pub use config::ConfigError;
use config::{Provider, Rule};
use kms::Plugin;

const ALL: &str = "*";

/// The configuration as it stands, which may be read anew while it is in use.
#[derive(Debug)]
pub struct Encryption {
    path: PathBuf,
    rules: ArcSwap<Vec<Rule>>,
    /// The file as it was read last.
    read: Mutex<Vec<u8>>,
    metrics: Arc<kms::metrics::Metrics>,
}

impl Encryption {
    /// Plugins that do not answer yet are asked again and again.
    pub fn load(path: &Path) -> Result<Arc<Encryption>, ConfigError> {
        let (text, metrics) = (config::read(path)?, Arc::default());
        let rules = rules(&text, path, &metrics)?;
        for plugin in plugins(&rules) {
            if let Err(error) = plugin.check_now() {
                tracing::error!(name = &*plugin.name, error, "a KMS plugin is not ready");
            }
        }
        let (rules, read) = (ArcSwap::from_pointee(rules), Mutex::new(text));
        Ok(Arc::new(Encryption { path: path.to_owned(), rules, read, metrics }))
    }

    /// Reads the file again; whether it is another one now. What cannot be used, or names plugins that are not well,
    /// changes nothing.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        let mut read = self.read.lock();
        let text = config::read(&self.path)?;
        if *read == text {
            return Ok(false);
        }
        let rules = rules(&text, &self.path, &self.metrics)?;
        for plugin in plugins(&rules) {
            plugin.check_now().map_err(|why| ConfigError::Plugin(plugin.name.to_string(), why))?;
        }
        self.rules.store(Arc::new(rules));
        *read = text;
        Ok(true)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether keys are guarded by plugins.
    pub fn has_plugins(&self) -> bool {
        !plugins(&self.rules.load()).is_empty()
    }

    /// Whether all plugins are well.
    pub async fn check(&self) -> Result<(), String> {
        let plugins = plugins(&self.rules.load_full());
        for plugin in plugins {
            plugin.check().await?;
        }
        Ok(())
    }

    /// What is counted about plugins, in the Prometheus text format.
    pub fn write_metrics(&self, out: &mut String) -> std::fmt::Result {
        let plugins = plugins(&self.rules.load());
        if plugins.is_empty() {
            return Ok(());
        }
        self.metrics.write(out)?;
        let rows =
            plugins.iter().map(|plugin| ([plugin.name.to_string().into()], plugin.known_sources() as f64));
        kms::metrics::CACHED_SOURCES.write(out, "gauge", rows)
    }
}

fn rules(text: &[u8], path: &Path, metrics: &Arc<kms::metrics::Metrics>) -> Result<Vec<Rule>, ConfigError> {
    config::parse(text, &path.display().to_string(), &mut |settings| Plugin::start(settings, metrics.clone()))
}

/// Each plugin once.
fn plugins(rules: &[Rule]) -> Vec<Plugin> {
    let mut found: Vec<Plugin> = Vec::new();
    for provider in rules.iter().flat_map(|rule| &rule.providers) {
        if let Provider::Kms(plugin) = provider
            && found.iter().all(|known| known.name != plugin.name)
        {
            found.push(plugin.clone());
        }
    }
    found
}

/// The providers of a resource: by its own name, by its group, or by the rule for everything.
fn providers<'a>(rules: &'a [Rule], resource: &str) -> Option<&'a [Provider]> {
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    let of = |resource: &str, group: &str| {
        let is = |rule: &&Rule| {
            let GroupResource { group: of_group, resource: of_resource } = &rule.resource;
            of_group == group && of_resource == resource
        };
        rules.iter().find(is)
    };
    let rule = of(name, group).or_else(|| of(ALL, group)).or_else(|| of(ALL, ALL))?;
    Some(&rule.providers)
}

impl Transformer for Encryption {
    fn is_for(&self, resource: &str) -> bool {
        providers(&self.rules.load(), resource).is_some()
    }

    fn seal(&self, resource: &str, place: &[u8], data: &[u8]) -> Result<Vec<u8>, TransformError> {
        let rules = self.rules.load();
        match providers(&rules, resource).and_then(<[Provider]>::first) {
            Some(Provider::Keys { prefix, keys }) => {
                let (name, cipher) = keys.first().ok_or_else(|| no_key(prefix))?;
                Ok([prefix.as_bytes(), name.as_bytes(), b":", &cipher.seal(place, data)].concat())
            }
            Some(Provider::Kms(plugin)) => plugin.seal(place, data).map_err(TransformError),
            Some(Provider::Identity) | None => Identity.seal(resource, place, data),
        }
    }

    fn open(
        &self,
        resource: &str,
        place: &[u8],
        data: &[u8],
    ) -> Result<(Vec<u8>, Freshness), TransformError> {
        let rules = self.rules.load();
        let Some(providers) = providers(&rules, resource) else {
            return Identity.open(resource, place, data);
        };
        let mut errors = Vec::new();
        for (index, provider) in providers.iter().enumerate() {
            match provider.open(place, data) {
                Some(Ok((opened, is_first))) => {
                    let fresh = index == 0 && is_first;
                    return Ok((opened, if fresh { Freshness::Fresh } else { Freshness::Stale }));
                }
                Some(Err(error)) => errors.push(error),
                None => {}
            }
        }
        Err(match errors.len() {
            0 => TransformError("no matching prefix found".to_owned()),
            1 => TransformError(errors.remove(0)),
            _ => TransformError(format!("[{}]", errors.join(", "))),
        })
    }
}

fn no_key(prefix: &str) -> TransformError {
    TransformError(format!("the provider {prefix} has no key"))
}

impl Provider {
    /// The data, and whether its first key opened it. None when it was written by another provider.
    fn open(&self, place: &[u8], data: &[u8]) -> Option<Result<(Vec<u8>, bool), String>> {
        let (prefix, keys) = match self {
            Provider::Keys { prefix, keys } => (prefix, keys),
            Provider::Kms(plugin) => {
                return data.strip_prefix(plugin.prefix.as_bytes()).map(|rest| plugin.open(place, rest));
            }
            // What others have encrypted they may try.
            Provider::Identity => return Some(Ok((Identity.open("", place, data).ok()?.0, true))),
        };
        let rest = data.strip_prefix(prefix.as_bytes())?;
        let mut error = "no matching key was found for the provided AES transformer".to_owned();
        if prefix.contains("secretbox") {
            error = "no matching key was found for the provided Secretbox transformer".to_owned();
        }
        for (index, (name, cipher)) in keys.iter().enumerate() {
            let sealed = rest.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            match sealed.map(|sealed| cipher.open(place, sealed)) {
                Some(Ok(opened)) => return Some(Ok((opened, index == 0))),
                Some(Err(why)) => error = why.to_string(),
                None => {}
            }
        }
        Some(Err(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "{name: old, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
    const NEW: &str = "{name: new, secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=}";

    fn encryption(resources: &str, providers: &str) -> Encryption {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources: [{{resources: [{resources}], providers: [{providers}]}}]"
        );
        let metrics = Arc::default();
        let rules = rules(text.as_bytes(), Path::new("f"), &metrics).expect("a configuration");
        plugins(&rules).iter().for_each(|plugin| plugin.check_now().expect("is well"));
        let (path, rules) = (PathBuf::new(), ArcSwap::from_pointee(rules));
        Encryption { path, rules, read: Mutex::default(), metrics }
    }

    fn keys(provider: &str, keys: &[&str]) -> String {
        format!("{{{provider}: {{keys: [{}]}}}}", keys.join(","))
    }

    fn open(by: &Encryption, data: &[u8]) -> Result<(String, Freshness), String> {
        let opened = by.open("secrets", b"secrets/a/b", data).map_err(|error| error.to_string());
        opened.map(|(data, freshness)| (String::from_utf8(data).expect("text"), freshness))
    }

    #[test]
    fn the_first_key_writes_and_all_keys_read() {
        for provider in ["aescbc", "aesgcm", "secretbox"] {
            let old = encryption("secrets", &keys(provider, &[OLD]));
            let both = encryption("secrets", &keys(provider, &[NEW, OLD]));
            let new = encryption("secrets", &keys(provider, &[NEW]));
            let sealed = old.seal("secrets", b"secrets/a/b", b"data").expect("seals");
            assert!(sealed.starts_with(format!("k8s:enc:{provider}:v1:old:").as_bytes()));
            assert_eq!(open(&old, &sealed), Ok(("data".to_owned(), Freshness::Fresh)));
            assert_eq!(open(&both, &sealed), Ok(("data".to_owned(), Freshness::Stale)));
            assert!(open(&new, &sealed).is_err_and(|why| why.starts_with("no matching key was found")));
            let again = both.seal("secrets", b"secrets/a/b", b"data").expect("seals");
            assert_eq!(open(&new, &again), Ok(("data".to_owned(), Freshness::Fresh)));
        }
    }

    #[test]
    fn identity_reads_what_is_plain_and_nothing_else() {
        let sealed = encryption("secrets", &keys("aescbc", &[OLD]));
        let back = encryption("secrets", &format!("{{identity: {{}}}}, {}", keys("aescbc", &[OLD])));
        let cipher_text = sealed.seal("secrets", b"secrets/a/b", b"data").expect("seals");
        assert_eq!(open(&back, &cipher_text), Ok(("data".to_owned(), Freshness::Stale)));
        assert_eq!(open(&back, b"data"), Ok(("data".to_owned(), Freshness::Fresh)));
        assert_eq!(back.seal("secrets", b"", b"data").expect("seals"), b"data");
        assert_eq!(open(&sealed, b"data"), Err("no matching prefix found".to_owned()));
        let other = encryption("configmaps", "{identity: {}}");
        let refusal = "identity transformer tried to read encrypted data";
        assert_eq!(open(&other, &cipher_text), Err(refusal.to_owned()));
    }

    #[test]
    fn plugins_and_keys_take_turns() {
        let server = kms::testing::TestPlugin::start("1");
        let kms = format!(
            "{{kms: {{apiVersion: v2, name: p, endpoint: 'unix://{}', timeout: 30s}}}}",
            server.socket().display()
        );
        let keys_only = encryption("secrets", &keys("aescbc", &[OLD]));
        let both = encryption("secrets, configmaps", &format!("{kms}, {}", keys("aescbc", &[OLD])));
        let old = keys_only.seal("secrets", b"secrets/a/b", b"data").expect("seals");
        assert_eq!(open(&both, &old), Ok(("data".to_owned(), Freshness::Stale)));
        let new = both.seal("secrets", b"secrets/a/b", b"data").expect("seals");
        assert!(new.starts_with(b"k8s:enc:kms:v2:p:"));
        assert_eq!(open(&both, &new), Ok(("data".to_owned(), Freshness::Fresh)));
        assert_eq!(server.encryptions(), 1, "one plugin for both resources");
        let mut text = String::new();
        both.write_metrics(&mut text).expect("renders");
        assert!(
            text.contains("apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"p\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn the_narrowest_rule_counts() {
        let check = |resources: &str, resource: &str, expect: bool| {
            let encryption = encryption(resources, "{identity: {}}");
            assert_eq!(encryption.is_for(resource), expect, "{resources} {resource}");
        };
        check("secrets", "secrets", true);
        check("secrets", "configmaps", false);
        check("secrets", "secrets.example.com", false);
        check("'*.'", "configmaps", true);
        check("'*.'", "deployments.apps", false);
        check("'*.apps'", "deployments.apps", true);
        check("'*.*'", "boxes.example.com", true);
    }
}
