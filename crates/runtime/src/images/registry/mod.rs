//! Pulling from a registry (OCI distribution specification): manifest, configuration, layers; everything verified.

mod auth;
mod http_client;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use self::auth::Challenge;
pub use self::auth::Credentials;
use self::http_client::HttpClient;
use super::layer::digest_of;
use super::manifest::{
    DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, ImageManifest, MANIFEST_TYPES, Manifest, Resolved,
};
use super::{Error, ImageRef, Reference, Result, Store};

/// Layers fetched at a time (containerd's `max_concurrent_downloads`).
const DOWNLOADS_MAX: usize = 3;
/// Lists of manifests within lists.
const NESTING_MAX: usize = 4;
const DOCKER_DOMAIN: &str = "docker.io";
const DOCKER_REGISTRY: &str = "registry-1.docker.io";
/// How much of a registry's complaint is passed on.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Pulls images.
pub struct Registry {
    client: HttpClient,
    /// Registries spoken to without TLS, besides those on this machine.
    plain_http: Vec<String>,
}

impl Registry {
    pub fn new(plain_http: Vec<String>) -> Registry {
        Registry { client: HttpClient::new(), plain_http }
    }

    /// Fetches an image into the store; what the store already has is not fetched.
    pub async fn pull(
        &self,
        store: Arc<Store>,
        image: &Reference,
        credentials: Credentials,
    ) -> Result<ImageRef> {
        let session = Session::new(self, image, credentials);
        let (digest, manifest) = session.manifest().await?;
        let config = session.document("image configuration", &manifest.config).await?;
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::malformed("image", "it has another number of layers than of layer ids"));
        }
        let mut staging = store.stage()?;
        let spool = staging.dir.clone();
        let missing: Vec<(usize, Descriptor, String)> = manifest
            .layers
            .into_iter()
            .zip(diff_ids)
            .enumerate()
            .map(|(index, (layer, diff_id))| (index, layer, diff_id))
            .filter(|(_, _, diff_id)| !store.has_layer(diff_id))
            .collect();
        let mut downloads = stream::iter(missing)
            .map(|(index, layer, diff_id)| {
                let (session, path) = (&session, spool.join(format!("blob-{index}")));
                async move { session.download(&layer, &path).await.map(|()| (path, diff_id)) }
            })
            .buffered(DOWNLOADS_MAX);
        while let Some((path, diff_id)) = downloads.try_next().await? {
            staging = unpack(staging, path, diff_id).await?;
        }
        drop(downloads);
        let name = image.clone();
        blocking(move || store.commit(staging, &config, Some(&name), Some(&digest))).await
    }

    fn is_plain(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name == "localhost"
            || name.starts_with("127.")
            || name == "[::1]"
            || self.plain_http.iter().any(|h| h == host)
    }
}

async fn unpack(
    mut staging: super::store::Staging,
    path: std::path::PathBuf,
    diff_id: String,
) -> Result<super::store::Staging> {
    blocking(move || {
        if !staging.has(&diff_id) {
            let blob = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
            staging.unpack(blob, Some(&diff_id))?;
        }
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(staging)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::malformed("image", e))?
}

/// One pull: the repository and the authorization found for it.
struct Session<'a> {
    registry: &'a Registry,
    image: &'a Reference,
    /// Host as the user names it.
    base: String,
    credentials: Credentials,
    authorization: Mutex<Option<String>>,
}

impl<'a> Session<'a> {
    fn new(registry: &'a Registry, image: &'a Reference, credentials: Credentials) -> Self {
        let host = if image.domain == DOCKER_DOMAIN { DOCKER_REGISTRY } else { &image.domain };
        let scheme = if registry.is_plain(host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}", image.path);
        let authorization =
            Mutex::new(credentials.registry_token.as_ref().map(|token| format!("Bearer {token}")));
        Session { registry, image, base, credentials, authorization }
    }

    async fn manifest(&self) -> Result<(String, ImageManifest)> {
        let mut selector = self.image.selector().to_owned();
        let mut expected = self.image.digest.clone();
        for _ in 0..NESTING_MAX {
            let url = format!("{}/manifests/{selector}", self.base);
            let bytes = self.small(&url, "image manifest").await?;
            let digest = digest_of(&bytes);
            check("image manifest", expected.as_deref().unwrap_or(&digest), &digest)?;
            match Manifest::parse(&bytes)?.resolve()? {
                Resolved::Image(manifest) => {
                    // The name a user pins is that of the list, if there is one.
                    return Ok((digest, manifest));
                }
                Resolved::Platform(descriptor) => {
                    selector = descriptor.digest.clone();
                    expected = Some(descriptor.digest);
                }
            }
        }
        Err(Error::malformed("image manifest", "lists are nested too deeply"))
    }

    async fn document(&self, what: &'static str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.small(&self.blob_url(descriptor), what).await?;
        check(what, &descriptor.digest, &digest_of(&bytes))?;
        Ok(bytes)
    }

    fn blob_url(&self, descriptor: &Descriptor) -> String {
        format!("{}/blobs/{}", self.base, descriptor.digest)
    }

    async fn small(&self, url: &str, what: &'static str) -> Result<Vec<u8>> {
        let mut body = self.get(url, what).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut body).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                return Err(Error::TooLarge { what, max: DOCUMENT_BYTES_MAX });
            }
        }
        Ok(bytes)
    }

    async fn download(&self, layer: &Descriptor, path: &std::path::Path) -> Result<()> {
        let mut body = self.get(&self.blob_url(layer), "layer").await?;
        let mut file = std::fs::File::create(path).map_err(Error::io("create", path))?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        while let Some(chunk) = self.chunk(&mut body).await? {
            hash.update(&chunk);
            length += chunk.len() as u64;
            if layer.size > 0 && length > layer.size {
                return Err(Error::TooLarge { what: "layer", max: layer.size });
            }
            file.write_all(&chunk).map_err(Error::io("write", path))?;
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        check("layer", &layer.digest, &format!("sha256:{found}"))
    }

    async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(http_client::IDLE_TIMEOUT, body.frame());
            match frame.await.map_err(|_| self.unreachable("timed out"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.unreachable(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Gets a URL of this repository, authorizing once when the registry asks for it.
    async fn get(&self, url: &str, what: &'static str) -> Result<Incoming> {
        let mut may_authorize = true;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let response = self
                .registry
                .client
                .get(url, MANIFEST_TYPES, authorization.as_deref())
                .await
                .map_err(|e| self.unreachable(e))?;
            match response.status().as_u16() {
                200 => return Ok(response.into_body()),
                404 => return Err(Error::NotInRegistry { image: self.image.to_string() }),
                401 if may_authorize => {
                    may_authorize = false;
                    self.authorize(response.headers()).await?;
                }
                status @ (401 | 403) => {
                    let reason = format!(
                        "the registry answered {status}; the repository does not exist or needs authorization"
                    );
                    return Err(Error::Denied { image: self.image.to_string(), reason });
                }
                status => return Err(self.complaint(status, what, response.into_body()).await),
            }
        }
    }

    async fn authorize(&self, headers: &http::HeaderMap) -> Result<()> {
        let denied =
            |reason: &str| Error::Denied { image: self.image.to_string(), reason: reason.to_owned() };
        let challenge = headers
            .get_all(http::header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse)
            .ok_or_else(|| denied("the registry does not say how to authorize"))?;
        let authorization = match challenge {
            Challenge::Basic => self.credentials.basic().ok_or_else(|| denied("credentials are needed"))?,
            Challenge::Bearer { realm, service } => {
                let url = auth::token_url(&realm, service.as_deref(), &self.image.path);
                let basic = self.credentials.basic();
                let response = self.registry.client.get(&url, "application/json", basic.as_deref()).await;
                let response = response.map_err(|e| self.unreachable(e))?;
                if !response.status().is_success() {
                    return Err(denied(&format!("the token service answered {}", response.status())));
                }
                let body = http_body_util::Limited::new(response.into_body(), DOCUMENT_BYTES_MAX as usize);
                let body = body.collect().await.map_err(|e| self.unreachable(e))?.to_bytes();
                let token = auth::token_in(&body).ok_or_else(|| denied("the token service sent no token"))?;
                format!("Bearer {token}")
            }
        };
        *self.authorization.lock().await = Some(authorization);
        Ok(())
    }

    async fn complaint(&self, status: u16, what: &'static str, body: Incoming) -> Error {
        let limited = http_body_util::Limited::new(body, DOCUMENT_BYTES_MAX as usize);
        let text = limited.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&text).chars().take(COMPLAINT_CHARS_MAX).collect();
        Error::Registry { registry: self.image.domain.clone(), status, what, body }
    }

    fn unreachable(&self, reason: impl ToString) -> Error {
        Error::Unreachable { registry: self.image.domain.clone(), reason: reason.to_string() }
    }
}

fn check(what: &'static str, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::DigestMismatch { what, expected: expected.to_owned(), found: found.to_owned() })
}
