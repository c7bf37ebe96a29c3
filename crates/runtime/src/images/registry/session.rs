//! One pull: the hosts that may have the image, asked in turn, and the authorization found for each.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use super::auth::{self, Challenge};
use super::hosts::Endpoint;
use super::http_client::{self, HttpClient};
use crate::images::layer::digest_of;
use crate::images::manifest::{
    DOCUMENT_BYTES_MAX, Descriptor, ImageManifest, MANIFEST_TYPES, Manifest, Resolved,
};
use crate::images::{Error, Reference, Result};

/// Lists of manifests within lists.
const NESTING_MAX: usize = 4;
/// How much of a registry's complaint is passed on.
const COMPLAINT_CHARS_MAX: usize = 300;

pub struct Session<'a> {
    image: &'a Reference,
    /// At least one.
    hosts: Vec<Host>,
    /// Which of them answered last, and so is asked first.
    preferred: AtomicUsize,
}

/// A host and what was found out about it.
pub struct Host {
    endpoint: Endpoint,
    client: HttpClient,
    authorization: Mutex<Option<String>>,
}

impl<'a> Session<'a> {
    pub fn new(image: &'a Reference, endpoints: Vec<Endpoint>) -> Self {
        let host = |endpoint: Endpoint| Host {
            client: HttpClient::new(endpoint.tls.clone()),
            authorization: Mutex::new(
                endpoint.credentials.registry_token.as_ref().map(|token| format!("Bearer {token}")),
            ),
            endpoint,
        };
        Session { image, hosts: endpoints.into_iter().map(host).collect(), preferred: AtomicUsize::new(0) }
    }

    /// The hosts in the order in which they are asked.
    pub fn hosts(&self) -> impl Iterator<Item = (usize, &Host)> {
        let first = self.preferred.load(Ordering::Relaxed);
        let (before, rest) = self.hosts.split_at(first);
        rest.iter().zip(first..).chain(before.iter().zip(0..)).map(|(host, index)| (index, host))
    }

    pub fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    /// The manifest for this platform, and the digest that the image is known by: that of the list, if there is one.
    pub async fn manifest(&self) -> Result<(String, ImageManifest)> {
        let mut selector = self.image.selector().to_owned();
        let mut expected = self.image.digest.clone();
        let mut known_by = None;
        for _ in 0..NESTING_MAX {
            let path = format!("manifests/{selector}");
            let bytes = self.small(&path, "image manifest", expected.as_deref()).await?;
            let known_by = known_by.get_or_insert_with(|| digest_of(&bytes));
            match Manifest::parse(&bytes)?.resolve()? {
                Resolved::Image(manifest) => return Ok((known_by.clone(), manifest)),
                Resolved::Platform(descriptor) => {
                    selector = descriptor.digest.clone();
                    expected = Some(descriptor.digest);
                }
            }
        }
        Err(Error::malformed("image manifest", "lists are nested too deeply"))
    }

    pub async fn document(&self, what: &'static str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.small(&format!("blobs/{}", descriptor.digest), what, Some(&descriptor.digest)).await
    }

    /// A small document from the first host that has it.
    async fn small(&self, path: &str, what: &'static str, expected: Option<&str>) -> Result<Vec<u8>> {
        let mut refusals = Refusals::default();
        for (index, host) in self.hosts() {
            match self.small_from(host, path, what, expected).await {
                Ok(bytes) => {
                    self.prefer(index);
                    return Ok(bytes);
                }
                Err(error) => refusals.add(host, error),
            }
        }
        Err(refusals.into_error(self.image))
    }

    async fn small_from(
        &self,
        host: &Host,
        path: &str,
        what: &'static str,
        expected: Option<&str>,
    ) -> Result<Vec<u8>> {
        let mut body = self.get(host, path, what).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = host.chunk(&mut body).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                return Err(Error::TooLarge { what, max: DOCUMENT_BYTES_MAX });
            }
        }
        match expected {
            Some(expected) => check(what, expected, &digest_of(&bytes)).map(|()| bytes),
            None => Ok(bytes),
        }
    }

    /// Gets something of the repository, authorizing once when the host asks for it.
    pub async fn get(&self, host: &Host, path: &str, what: &'static str) -> Result<Incoming> {
        let url = host.endpoint.url(path);
        let mut may_authorize = true;
        loop {
            let authorization = host.authorization.lock().await.clone();
            let response = host.ask(&url, MANIFEST_TYPES, authorization.as_deref()).await?;
            match response.status().as_u16() {
                200 => return Ok(response.into_body()),
                404 => return Err(Error::NotInRegistry { image: self.image.to_string() }),
                401 if may_authorize => {
                    may_authorize = false;
                    self.authorize(host, response.headers()).await?;
                }
                status @ (401 | 403) => {
                    return Err(self.denied(&format!(
                        "the registry answered {status}; the repository does not exist or needs authorization"
                    )));
                }
                status => return Err(host.complaint(status, what, response.into_body()).await),
            }
        }
    }

    async fn authorize(&self, host: &Host, headers: &HeaderMap) -> Result<()> {
        let challenge = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse)
            .ok_or_else(|| self.denied("the registry does not say how to authorize"))?;
        let basic = host.endpoint.credentials.basic();
        let authorization = match challenge {
            Challenge::Basic => basic.ok_or_else(|| self.denied("credentials are needed"))?,
            Challenge::Bearer { realm, service } => {
                let url = auth::token_url(&realm, service.as_deref(), &host.endpoint.repository);
                let response = host.ask(&url, "application/json", basic.as_deref()).await?;
                if !response.status().is_success() {
                    return Err(self.denied(&format!("the token service answered {}", response.status())));
                }
                let body = http_body_util::Limited::new(response.into_body(), DOCUMENT_BYTES_MAX as usize);
                let body = body.collect().await.map_err(|e| host.unreachable(e))?.to_bytes();
                let token =
                    auth::token_in(&body).ok_or_else(|| self.denied("the token service sent no token"))?;
                format!("Bearer {token}")
            }
        };
        *host.authorization.lock().await = Some(authorization);
        Ok(())
    }

    fn denied(&self, reason: &str) -> Error {
        Error::Denied { image: self.image.to_string(), reason: reason.to_owned() }
    }

    pub fn refused(&self, refusals: Refusals) -> Error {
        refusals.into_error(self.image)
    }
}

impl Host {
    async fn ask(&self, url: &str, accept: &str, authorization: Option<&str>) -> Result<Response<Incoming>> {
        let named = [(header::ACCEPT, Some(accept)), (header::AUTHORIZATION, authorization)];
        let mut headers = HeaderMap::new();
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| self.unreachable(error))?);
        }
        self.client.get(url, &headers).await.map_err(|error| self.unreachable(error))
    }

    /// The next piece of a body.
    pub async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
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

    async fn complaint(&self, status: u16, what: &'static str, body: Incoming) -> Error {
        let limited = http_body_util::Limited::new(body, DOCUMENT_BYTES_MAX as usize);
        let text = limited.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&text).chars().take(COMPLAINT_CHARS_MAX).collect();
        Error::Registry { registry: self.endpoint.host.clone(), status, what, body }
    }

    fn unreachable(&self, reason: impl ToString) -> Error {
        Error::Unreachable { registry: self.endpoint.host.clone(), reason: reason.to_string() }
    }
}

/// What the hosts asked so far had against it.
#[derive(Default)]
pub struct Refusals(Option<Error>);

impl Refusals {
    /// The first complaint is kept; that a host has no such image says less than any other.
    pub fn add(&mut self, host: &Host, error: Error) {
        tracing::debug!(host = host.endpoint.host, %error, "host does not give what is wanted");
        if matches!(self.0, None | Some(Error::NotInRegistry { .. })) {
            self.0 = Some(error);
        }
    }

    fn into_error(self, image: &Reference) -> Error {
        self.0.unwrap_or_else(|| Error::NotInRegistry { image: image.to_string() })
    }
}

pub fn check(what: &'static str, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::DigestMismatch { what, expected: expected.to_owned(), found: found.to_owned() })
}
