//! Kubeconfig files: one of our own, and an entry in the user's that harms nothing else there.

use std::path::{Path, PathBuf};

use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::files;
use crate::pki::Identity;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kubeconfig {0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("kubeconfig {0} is not valid YAML and was left alone: {1}")]
    Invalid(PathBuf, String),
}

/// A kubeconfig with one cluster, one user and one context, all of the same name.
pub fn new(context: &str, server: &str, ca_certificate: &str, identity: &Identity) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": server,
            "certificate-authority-data": STANDARD.encode(ca_certificate)}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "users": [{"name": context, "user": {"client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key)}}],
    })
}

/// One that says only where a cluster is and whom to trust there, as kubeadm's `cluster-info` has it.
pub fn anonymous(server: &str, ca_certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "", "contexts": [], "users": [],
        "clusters": [{"name": "", "cluster": {"server": server,
            "certificate-authority-data": STANDARD.encode(ca_certificate)}}],
    })
}

/// The authority of the first cluster that a kubeconfig names, PEM.
pub fn authority(text: &str) -> Option<String> {
    let config: Value = serde_saphyr::from_str(text).ok()?;
    let data = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str()?;
    String::from_utf8(STANDARD.decode(data).ok()?).ok()
}

/// As YAML text.
pub fn render(config: &Value) -> String {
    serde_saphyr::to_string(config).expect("plain values always render")
}

/// Only its owner may read it: it holds a key.
pub fn write(path: &Path, config: &Value) -> Result<(), Error> {
    files::write(path, render(config).as_bytes(), 0o600).map_err(|e| Error::Io(path.to_owned(), e))
}

/// `~/.kube/config`, if there is a home.
pub fn user_path() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".kube/config"))
}

const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Puts our entries into the user's file in the place of older ones of the same name. Where the user has no current
/// context, ours becomes it.
pub fn merge(path: &Path, ours: &Value) -> Result<(), Error> {
    let mut config = read(path)?.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Config"}));
    for list in LISTS {
        for entry in ours[list].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap_or_default();
            remove_named(&mut config, list, name);
            match config.get_mut(list).and_then(Value::as_array_mut) {
                Some(entries) => entries.push(entry.clone()),
                None => config[list] = json!([entry]),
            }
        }
    }
    if config["current-context"].as_str().is_none_or(str::is_empty) {
        config["current-context"] = ours["current-context"].clone();
    }
    write_through_links(path, &config)
}

/// Takes our entries out again. A file that holds nothing else goes too. True when something was removed.
pub fn unmerge(path: &Path, context: &str) -> Result<bool, Error> {
    let Some(mut config) = read(path)? else { return Ok(false) };
    let before = config.clone();
    for list in LISTS {
        remove_named(&mut config, list, context);
    }
    if config["current-context"] == context {
        config["current-context"] = "".into();
    }
    if config == before {
        return Ok(false);
    }
    let empty = LISTS.iter().all(|list| config[*list].as_array().is_none_or(Vec::is_empty));
    if empty {
        files::remove(path).map_err(|e| Error::Io(path.to_owned(), e))?;
    } else {
        write_through_links(path, &config)?;
    }
    Ok(true)
}

fn remove_named(config: &mut Value, list: &str, name: &str) {
    if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
        entries.retain(|entry| entry["name"] != name);
    }
}

/// `None` when there is no file, or an empty one.
fn read(path: &Path) -> Result<Option<Value>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Io(path.to_owned(), error)),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let invalid = |why: String| Error::Invalid(path.to_owned(), why);
    let config: Value = serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string()))?;
    if config.is_object() { Ok(Some(config)) } else { Err(invalid("it is not a map".to_owned())) }
}

/// A link is followed, so that what it points to changes and the link stays.
fn write_through_links(path: &Path, config: &Value) -> Result<(), Error> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    write(&target, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        let identity = Identity { certificate: "c".into(), key: "k".into() };
        new("coxswain", "https://127.0.0.1:6443", "ca", &identity)
    }

    fn scratch(name: &str, text: Option<&str>) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kubeconfig-{}-{name}/config", std::process::id()));
        files::remove(path.parent().expect("a folder")).expect("removes");
        if let Some(text) = text {
            files::write(&path, text.as_bytes(), 0o600).expect("writes");
        }
        path
    }

    const OTHERS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: 'https://w'}\n\
                          contexts:\n- name: work\n  context: {cluster: work, user: work}\nusers: []\nextensions: [{name: x}]\n";

    #[test]
    fn what_others_wrote_stays() {
        let path = scratch("others", Some(OTHERS));
        let before = read(&path).expect("reads");
        merge(&path, &ours()).expect("merges");
        merge(&path, &ours()).expect("merges again");
        let merged = read(&path).expect("reads").expect("there");
        assert_eq!(merged["current-context"], "work");
        assert_eq!(merged["contexts"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged["extensions"][0]["name"], "x");
        assert!(unmerge(&path, "coxswain").expect("unmerges"));
        assert_eq!(read(&path).expect("reads"), before);
        assert!(!unmerge(&path, "coxswain").expect("nothing left"));
    }

    #[test]
    fn a_file_of_our_own_comes_and_goes() {
        let path = scratch("own", None);
        merge(&path, &ours()).expect("makes");
        assert_eq!(read(&path).expect("reads"), Some(ours()));
        assert!(unmerge(&path, "coxswain").expect("unmerges"));
        assert!(!path.exists());
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let path = scratch("broken", Some("a: [\n"));
        assert!(matches!(merge(&path, &ours()), Err(Error::Invalid(..))));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "a: [\n");
    }
}
