//! The answer of a proxied server on its way to the client: where it redirects to and the links of its pages lead through
//! the proxy, and it may not speak for this server to other origins (upstream: `Transport`, `corsRemovingTransport`).

use std::io::{self, Read, Write};

use apimachinery::Status;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION,
};
use http::{HeaderMap, HeaderValue, Response};

use super::links::Links;
use crate::body::{self, Body};
use crate::negotiation::media_type;

/// A page longer than this, as it is or unpacked, is refused: it has to be in memory as a whole, and people do not read
/// such pages.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// What a server says about who may read its answers. It would speak for all of this server.
const CORS: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// How a page is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    /// None for one that cannot be read here, whose pages pass as they are.
    fn of(headers: &HeaderMap) -> Option<Coding> {
        match text(headers, &CONTENT_ENCODING) {
            "" => Some(Coding::Plain),
            "gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    }

    fn unpack(self, packed: Bytes) -> io::Result<Vec<u8>> {
        match self {
            Coding::Plain => Ok(packed.into()),
            Coding::Gzip => read_page(GzDecoder::new(&packed[..])),
            Coding::Deflate => read_page(DeflateDecoder::new(&packed[..])),
        }
    }

    fn pack(self, page: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Coding::Plain => Ok(page),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&page)?;
                encoder.finish()
            }
            Coding::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&page)?;
                encoder.finish()
            }
        }
    }
}

fn read_page(unpacked: impl Read) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let limit = PAGE_BYTES_MAX as u64 + 1;
    unpacked.take(limit).read_to_end(&mut page)?;
    if page.len() > PAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than the proxy takes"));
    }
    Ok(page)
}

/// The answer with all its links through the proxy.
pub async fn through(links: &Links, answer: Response<Body>) -> Result<Response<Body>, Status> {
    let (mut head, body) = answer.into_parts();
    for name in CORS {
        head.headers.remove(name);
    }
    if head.headers.contains_key(LOCATION) {
        redirect(links, &mut head.headers);
        return Ok(Response::from_parts(head, body));
    }
    let is_page = media_type(text(&head.headers, &CONTENT_TYPE)) == "text/html";
    let Some(coding) = Coding::of(&head.headers).filter(|_| is_page) else {
        return Ok(Response::from_parts(head, body));
    };
    let packed = body::read_at_most(body, PAGE_BYTES_MAX).await?;
    if packed.is_empty() {
        // The answer to a HEAD, whose length is that of a page that nobody sees.
        return Ok(Response::from_parts(head, body::empty()));
    }
    let broken = |error: io::Error| Status::internal(format!("a proxied page cannot be read: {error}"));
    let page = coding.unpack(packed).map_err(broken)?;
    let page = coding.pack(links.rewritten_page(&page)).map_err(broken)?;
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
    Ok(Response::from_parts(head, body::full(page)))
}

fn redirect(links: &Links, headers: &mut HeaderMap) {
    let rewritten = links.rewritten(text(headers, &LOCATION));
    if let Some(location) = rewritten.and_then(|link| HeaderValue::from_str(&link).ok()) {
        headers.insert(LOCATION, location);
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/p".to_owned(), server: "10.0.0.1:80".to_owned(), asked_host: String::new() }
    }

    async fn check(answer: Response<Body>) -> (HeaderMap, Vec<u8>) {
        let (head, body) = through(&links(), answer).await.expect("passes").into_parts();
        let bytes = body::read_at_most(body, PAGE_BYTES_MAX).await.expect("is short");
        (head.headers, bytes.to_vec())
    }

    fn page(coding: &str, bytes: Vec<u8>) -> Response<Body> {
        let answer = Response::builder().header(CONTENT_TYPE, "text/html; charset=utf-8");
        let answer = answer.header(CONTENT_LENGTH, bytes.len()).header(CONTENT_ENCODING, coding);
        answer.body(body::full(bytes)).expect("is whole")
    }

    #[tokio::test]
    async fn pages_are_rewritten_however_they_are_packed() {
        for (name, coding) in [("", Coding::Plain), ("gzip", Coding::Gzip), ("deflate", Coding::Deflate)] {
            let packed = coding.pack(b"<a href=/x>".to_vec()).expect("packs");
            let (headers, bytes) = check(page(name, packed)).await;
            assert_eq!(headers[CONTENT_LENGTH], bytes.len().to_string(), "{name}");
            assert_eq!(coding.unpack(bytes.into()).expect("unpacks"), b"<a href=/p/x>", "{name}");
        }
        let (_, bytes) = check(page("br", b"<a href=/x>".to_vec())).await;
        assert_eq!(bytes, b"<a href=/x>");
    }

    #[tokio::test]
    async fn redirects_stay_within_the_proxy_and_other_answers_pass() {
        let answer = Response::builder().status(302).header(LOCATION, "http://10.0.0.1:80/login");
        let (headers, _) = check(answer.body(body::empty()).expect("is whole")).await;
        assert_eq!(headers[LOCATION], "/p/login");
        let answer = Response::builder().header(CONTENT_TYPE, "text/plain");
        let answer = answer.header(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        let (headers, bytes) = check(answer.body(body::full("<a href=/x>")).expect("is whole")).await;
        assert_eq!((bytes, headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)), (b"<a href=/x>".to_vec(), None));
    }

    #[tokio::test]
    async fn a_page_that_unpacks_past_the_limit_is_refused() {
        let bomb = Coding::Gzip.pack(vec![b' '; PAGE_BYTES_MAX + 1]).expect("packs");
        assert_eq!(through(&links(), page("gzip", bomb)).await.expect_err("is too large").code, 500);
        let most = Coding::Gzip.pack(vec![b' '; PAGE_BYTES_MAX]).expect("packs");
        assert!(through(&links(), page("gzip", most)).await.is_ok());
        let plain = page("", vec![b' '; PAGE_BYTES_MAX + 1]);
        assert_eq!(through(&links(), plain).await.expect_err("is too large").code, 413);
    }
}
