//! Pulling from registries (OCI distribution specification): manifest, configuration, layers; everything verified.

mod auth;
mod hosts;
mod http_client;
mod layers;
mod session;
mod tls;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

pub use self::auth::Credentials;
use self::hosts::Registries;
pub use self::http_client::HttpClient;
use self::session::Session;
pub use self::tls::TlsFiles;
use super::manifest::{Descriptor, ImageConfig};
use super::{Error, ImageRef, Reference, Result, Store};

/// Layers fetched and unpacked at a time (containerd's `max_concurrent_downloads`).
const LAYERS_AT_A_TIME: usize = 3;

/// Pulls images.
pub struct Registry {
    /// `registries.yaml`, read anew for each pull; it need not be there.
    file: PathBuf,
}

impl Registry {
    /// Fails if the file is there and cannot be understood.
    pub fn open(file: PathBuf) -> Result<Registry> {
        Registries::load(&file)?;
        Ok(Registry { file })
    }

    /// Fetches an image into the store; what the store already has is not fetched.
    pub async fn pull(
        &self,
        store: Arc<Store>,
        image: &Reference,
        credentials: Credentials,
    ) -> Result<ImageRef> {
        let hosts = Registries::load(&self.file)?.endpoints(image, &credentials);
        let session = Session::new(image, hosts);
        let (digest, manifest) = session.manifest().await?;
        let config = session.document("image configuration", &manifest.config).await?;
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::malformed("image", "it has another number of layers than of layer ids"));
        }
        let mut staging = store.stage()?;
        let mut wanted = Vec::new();
        for (layer, diff_id) in missing(&store, manifest.layers, diff_ids) {
            wanted.push((layer, diff_id, staging.folder()?));
        }
        let mut layers = stream::iter(wanted)
            .map(|(layer, diff_id, dir)| {
                let session = &session;
                async move { Ok::<_, Error>((session.layer(&layer, &dir).await?, diff_id, dir)) }
            })
            .buffer_unordered(LAYERS_AT_A_TIME);
        while let Some((unpacked, diff_id, dir)) = layers.try_next().await? {
            staging.add(dir, unpacked, Some(&diff_id))?;
        }
        drop(layers);
        let name = image.clone();
        blocking(move || store.commit(staging, &config, Some(&name), Some(&digest))).await
    }
}

/// The layers that are to be fetched, each once, with their ids.
fn missing(store: &Store, layers: Vec<Descriptor>, diff_ids: Vec<String>) -> Vec<(Descriptor, String)> {
    let mut seen = BTreeSet::new();
    let pairs = layers.into_iter().zip(diff_ids);
    pairs.filter(|(_, diff_id)| !store.has_layer(diff_id) && seen.insert(diff_id.clone())).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::malformed("image", e))?
}
