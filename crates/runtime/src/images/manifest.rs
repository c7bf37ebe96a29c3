//! The parts of OCI and Docker manifests and image configurations that running a container needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reference::is_digest;
use super::{Error, Result};

/// Manifests and configurations are small documents; registries cap them at the same size.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The overlay file system takes this many layers at most.
pub const LAYERS_MAX: usize = 128;

pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// What a registry is asked to answer a manifest request with.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

/// A manifest, or a list of them for several platforms.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub config: Option<Descriptor>,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// A manifest checked to describe one image.
#[derive(Debug)]
pub struct ImageManifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

pub enum Resolved {
    Image(ImageManifest),
    /// Look here for this platform.
    Platform(Descriptor),
}

impl Manifest {
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|e| Error::malformed("image manifest", e))?;
        let digests = manifest.config.iter().chain(&manifest.layers).chain(&manifest.manifests);
        for descriptor in digests {
            if !is_digest(&descriptor.digest) {
                return Err(Error::malformed("image manifest", format!("digest {:?}", descriptor.digest)));
            }
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(Error::malformed("image manifest", format!("more than {LAYERS_MAX} layers")));
        }
        Ok(manifest)
    }

    pub fn resolve(self) -> Result<Resolved> {
        if let Some(config) = self.config {
            return Ok(Resolved::Image(ImageManifest { config, layers: self.layers }));
        }
        let fits = |descriptor: &Descriptor| {
            descriptor.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == ARCHITECTURE)
        };
        let found = self.manifests.into_iter().find(fits);
        found.map(Resolved::Platform).ok_or(Error::NoPlatform { wanted: PLATFORM })
    }
}

/// An image's configuration document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: ContainerConfig,
    #[serde(default)]
    pub rootfs: RootfsConfig,
}

/// How containers of an image run unless the pod says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootfsConfig {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        let config: ImageConfig =
            serde_json::from_slice(bytes).map_err(|e| Error::malformed("image configuration", e))?;
        match config.rootfs.diff_ids.iter().find(|id| !is_digest(id)) {
            Some(id) => Err(Error::malformed("image configuration", format!("layer id {id:?}"))),
            None => Ok(config),
        }
    }
}

/// Go writes an empty list as `null`, people a YAML key without a value.
pub fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
