//! Where a cluster's files are.

use std::path::{Path, PathBuf};

use crate::{DEFAULT_NAME, NAME_MAX};

#[derive(Debug, thiserror::Error)]
#[error("cluster name {0:?} must be a lowercase RFC 1123 label of at most {NAME_MAX} characters")]
pub struct NameError(String);

/// The three roots below which a cluster keeps its files. Only the first survives `cox down`.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Durable: store, certificates, images, volumes. `/var/lib/coxswain`.
    pub data: PathBuf,
    /// For users: kubeconfigs. `/etc/coxswain`.
    pub config: PathBuf,
    /// Of this boot: sockets, locks. `/run/coxswain`.
    pub run: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots {
            data: "/var/lib/coxswain".into(),
            config: "/etc/coxswain".into(),
            run: "/run/coxswain".into(),
        }
    }
}

/// One cluster's places.
#[derive(Clone, Debug)]
pub struct Layout {
    name: String,
    roots: Roots,
}

impl Layout {
    pub fn new(name: &str, roots: Roots) -> Result<Self, NameError> {
        let plain = apimachinery::names::is_dns1123_label(name).is_empty() && name.len() <= NAME_MAX;
        if plain { Ok(Layout { name: name.to_owned(), roots }) } else { Err(NameError(name.to_owned())) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NAME
    }

    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    pub fn data(&self) -> PathBuf {
        self.roots.data.join(&self.name)
    }

    pub fn run(&self) -> PathBuf {
        self.roots.run.join(&self.name)
    }

    pub fn store(&self) -> PathBuf {
        self.data().join("store")
    }

    pub fn pki(&self) -> PathBuf {
        self.data().join("pki")
    }

    /// The authority that extension API servers believe, and the server's certificate of it.
    pub fn front_proxy_pki(&self) -> PathBuf {
        self.pki().join("front-proxy")
    }

    pub fn settings(&self) -> PathBuf {
        self.data().join("cluster.json")
    }

    pub fn runtime(&self) -> PathBuf {
        self.data().join("runtime")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.data().join("kubelet")
    }

    pub fn pod_logs(&self) -> PathBuf {
        self.data().join("log/pods")
    }

    pub fn log(&self) -> PathBuf {
        self.data().join("log/cox.log")
    }

    /// What `cox` changed outside its own folders, to be undone by `cox down`.
    pub fn traces(&self) -> PathBuf {
        self.data().join("traces.json")
    }

    pub fn network(&self) -> PathBuf {
        self.data().join("network")
    }

    pub fn cri_socket(&self) -> PathBuf {
        self.run().join("cri.sock")
    }

    pub fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// The administrator's way in.
    pub fn kubeconfig(&self) -> PathBuf {
        let file =
            if self.is_default() { "kubeconfig".to_owned() } else { format!("{}.kubeconfig", self.name) };
        self.roots.config.join(file)
    }

    /// Mirrors, credentials and authorities of image registries, if the user wants any.
    pub fn registries(&self) -> PathBuf {
        self.roots.config.join("registries.yaml")
    }

    /// Archives of images that the node is to have.
    pub fn image_archives(&self) -> PathBuf {
        self.data().join("images")
    }

    /// A component's own kubeconfig, for running it as a process of its own.
    pub fn component_kubeconfig(&self, component: &str) -> PathBuf {
        self.data().join("kubeconfig").join(component)
    }

    /// The cgroup below which everything of the cluster runs.
    pub fn cgroup(&self) -> String {
        if self.is_default() { "/coxswain".to_owned() } else { format!("/coxswain-{}", self.name) }
    }

    /// The context in `~/.kube/config`.
    pub fn context(&self) -> String {
        if self.is_default() { DEFAULT_NAME.to_owned() } else { format!("{DEFAULT_NAME}-{}", self.name) }
    }
}

/// Names of all clusters that have data below `root`.
pub fn known_clusters(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("cluster.json").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_fit_everywhere_are_taken() {
        for good in ["a", "coxswain", "test-1"] {
            assert!(Layout::new(good, Roots::default()).is_ok(), "{good}");
        }
        for bad in ["", "A", "a/b", "..", &"x".repeat(NAME_MAX + 1)] {
            assert!(Layout::new(bad, Roots::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn clusters_share_no_file() {
        let default = Layout::new(DEFAULT_NAME, Roots::default()).expect("a name");
        let other = Layout::new("other", Roots::default()).expect("a name");
        assert_eq!(default.kubeconfig(), Path::new("/etc/coxswain/kubeconfig"));
        assert_eq!(other.kubeconfig(), Path::new("/etc/coxswain/other.kubeconfig"));
        assert_ne!(default.data(), other.data());
        assert_ne!(default.cgroup(), other.cgroup());
    }
}
