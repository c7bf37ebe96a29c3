//! Encryption at rest: what of the cluster's state lies on disk in which form. It stands at the store's boundary
//! (`store::Transformer`), so that memory, watches and requests know nothing of it. What is written reads back with
//! upstream, and the reverse. Follows `encryptionconfig` and `value.NewPrefixTransformers`.

mod cipher;
mod config;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::GroupResource;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use store::{Freshness, Identity, TransformError, Transformer};

pub use config::ConfigError;
use config::{Provider, Rule};

const ALL: &str = "*";

/// The configuration as it stands, which may be read anew while it is in use.
#[derive(Debug)]
pub struct Encryption {
    path: PathBuf,
    rules: ArcSwap<Vec<Rule>>,
    /// The file as it was read last.
    read: Mutex<Vec<u8>>,
}

impl Encryption {
    pub fn load(path: &Path) -> Result<Arc<Encryption>, ConfigError> {
        let (text, rules) = config::load(path)?;
        let (rules, read) = (ArcSwap::from_pointee(rules), Mutex::new(text));
        Ok(Arc::new(Encryption { path: path.to_owned(), rules, read }))
    }

    /// Reads the file again; whether it is another one now. What cannot be used changes nothing.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        let mut read = self.read.lock();
        let (text, rules) = config::load(&self.path)?;
        let has_changed = *read != text;
        if has_changed {
            self.rules.store(Arc::new(rules));
            *read = text;
        }
        Ok(has_changed)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
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
        let Provider::Keys { prefix, keys } = self else {
            // What others have encrypted they may try.
            let opened = Identity.open("", place, data).ok()?;
            return Some(Ok((opened.0, true)));
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
        let rules = config::parse(text.as_bytes(), "f").expect("a configuration");
        Encryption { path: PathBuf::new(), rules: ArcSwap::from_pointee(rules), read: Mutex::default() }
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
