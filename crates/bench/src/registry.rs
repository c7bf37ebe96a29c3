//! An image registry on a free port of this machine: as much of the distribution API as a pull needs.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::image::{self, Blob, Version};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is read of a file at a time.
const PIECE_BYTES: usize = 256 << 10;
const REPOSITORY: &str = "bench";

/// Serves until the program ends.
pub struct Registry {
    address: String,
    things: Arc<Mutex<HashMap<String, Thing>>>,
}

/// What a path leads to.
#[derive(Clone)]
struct Thing {
    media_type: &'static str,
    blob: Blob,
}

impl Registry {
    pub async fn start() -> Result<Registry> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let things = Arc::new(Mutex::new(HashMap::new()));
        tokio::spawn(serve(listener, things.clone()));
        Ok(Registry { address, things })
    }

    /// Offers a version, and tells its name.
    pub fn offer(&self, number: usize, version: Version) -> String {
        let mut things = self.things.lock().expect("nobody panics with it");
        let digest = image::digest(&version.manifest);
        let bytes = version.manifest.len() as u64;
        let manifest = Blob { digest: digest.clone(), file: None, tail: version.manifest, bytes };
        let manifest = Thing { media_type: image::MANIFEST_TYPE, blob: manifest };
        let path = |kind: &str, name: &str| format!("/v2/{REPOSITORY}/{kind}/{name}");
        things.insert(path("manifests", &format!("v{number}")), manifest.clone());
        things.insert(path("manifests", &digest), manifest);
        for blob in version.blobs {
            let thing = Thing { media_type: "application/octet-stream", blob };
            things.insert(path("blobs", &thing.blob.digest.clone()), thing);
        }
        format!("{}/{REPOSITORY}:v{number}", self.address)
    }
}

async fn serve(listener: TcpListener, things: Arc<Mutex<HashMap<String, Thing>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let things = things.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let found = things.lock().expect("nobody panics with it").get(path_of(&request)).cloned();
            answer(request.method().clone(), path_of(&request) == "/v2/", found)
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn path_of(request: &Request<Incoming>) -> &str {
    request.uri().path()
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

async fn answer(method: Method, is_root: bool, found: Option<Thing>) -> Result<Response<Body>, io::Error> {
    let Some(Thing { media_type, blob }) = found else {
        let mut response = Response::new(empty());
        *response.status_mut() = if is_root { http::StatusCode::OK } else { http::StatusCode::NOT_FOUND };
        return Ok(response);
    };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, blob.bytes)
        .header("Docker-Content-Digest", &blob.digest);
    let body = if method == Method::HEAD { empty() } else { body_of(blob).await? };
    response.body(body).map_err(io::Error::other)
}

async fn body_of(blob: Blob) -> Result<Body, io::Error> {
    let tail = stream::iter([Ok::<_, io::Error>(blob.tail)]);
    let Some(path) = blob.file else { return Ok(StreamBody::new(tail.map_ok(Frame::data)).boxed_unsync()) };
    let file = tokio::fs::File::open(path).await?;
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let length = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
        Ok::<_, io::Error>((length > 0).then(|| (Bytes::from(piece), file)))
    });
    Ok(StreamBody::new(pieces.chain(tail).map_ok(Frame::data)).boxed_unsync())
}
