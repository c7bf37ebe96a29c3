//! What a proxy changes in the head of a message: what concerns one connection only is taken out, and the backend is
//! told who asked for what.

use std::borrow::Cow;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Parts, Scheme, Uri};
use http::{Request, Version};

use crate::backend::Protocol;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What concerns one connection only, besides what `Connection` names (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// What the backend is told of a client; made once for a connection.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub client: HeaderValue,
    pub port: HeaderValue,
    pub proto: HeaderValue,
}

/// The host a request is for, in lower case and without port; `None` if it names none though it must.
pub fn host<B>(request: &Request<B>) -> Option<Cow<'_, str>> {
    let named = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).map(HeaderValue::to_str).transpose().ok()?,
    };
    let Some(named) = named else {
        return (request.version() < Version::HTTP_11).then_some(Cow::Borrowed(""));
    };
    let host = without_port(named).trim_end_matches('.');
    Some(match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => host.to_ascii_lowercase().into(),
        false => host.into(),
    })
}

fn without_port(authority: &str) -> &str {
    let from = authority.rfind(']').unwrap_or_default();
    match authority[from..].find(':') {
        Some(colon) => &authority[..from + colon],
        None => authority,
    }
}

/// The protocol that a client of HTTP/1.1 wants to go on with on its connection. With HTTP/2 it could go on to send
/// requests that no route was looked up for.
pub fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asks = listed(request.headers()).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol =
        request.headers().get(UPGRADE).filter(|_| asks && request.version() == Version::HTTP_11)?;
    let is_http = protocol.to_str().is_ok_and(|names| names.split(',').any(|name| is_http(name.trim())));
    (!is_http).then(|| protocol.clone())
}

fn is_http(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("h2c")
        || protocol.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("http"))
}

fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes out what concerns the connection that the message came over.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // A message whose length is told in two ways is read in the safer one, and passed on with one.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = listed(headers).filter_map(|token| token.parse().ok()).collect();
        for name in named.iter().filter(|name| **name != HOST) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a client's request one for a backend.
pub fn for_backend<B>(
    request: &mut Request<B>,
    forwarded: &Forwarded,
    protocol: Protocol,
    upgrade: Option<&HeaderValue>,
) {
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let host = authority.or_else(|| request.headers().get(HOST).cloned());
    let headers = request.headers_mut();
    let wants_trailers = headers.get(TE).is_some_and(|te| te.as_bytes().windows(8).any(|w| w == b"trailers"));
    remove_hop_by_hop(headers);
    // The server has answered it when the body is asked for.
    headers.remove(EXPECT);
    headers.insert(X_FORWARDED_FOR, forwarded.client.clone());
    headers.insert(X_REAL_IP, forwarded.client.clone());
    headers.insert(X_FORWARDED_PORT, forwarded.port.clone());
    headers.insert(X_FORWARDED_PROTO, forwarded.proto.clone());
    match &host {
        Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
        None => headers.remove(X_FORWARDED_HOST),
    };
    let host = host.unwrap_or(HeaderValue::from_static(""));
    match protocol {
        Protocol::Http1 => {
            headers.insert(HOST, host);
            join_cookies(headers);
            if let Some(upgrade) = upgrade {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, upgrade.clone());
            }
            *request.version_mut() = Version::HTTP_11;
            if request.uri().authority().is_some() {
                *request.uri_mut() = origin_form(request.uri());
            }
        }
        Protocol::H2c => {
            headers.remove(HOST);
            if wants_trailers {
                headers.insert(TE, TRAILERS);
            }
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = absolute_form(request.uri(), &host);
        }
    }
}

/// HTTP/2 may send them apart, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

fn origin_form(uri: &Uri) -> Uri {
    let mut parts = Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_default()
}

fn absolute_form(uri: &Uri, host: &HeaderValue) -> Uri {
    let mut parts = Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = host.to_str().ok().and_then(|host| host.parse().ok());
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::get(uri);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn the_host_is_read_without_port_and_in_lower_case() {
        let check = |uri: &str, headers: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(host(&request(uri, headers)).as_deref(), expected, "{uri} {headers:?}");
        };
        check("/", &[("host", "A.example.org:8080")], Some("a.example.org"));
        check("/", &[("host", "a.example.org.")], Some("a.example.org"));
        check("/", &[("host", "[2001:DB8::1]:80")], Some("[2001:db8::1]"));
        check("/", &[("host", "[2001:db8::1]")], Some("[2001:db8::1]"));
        check("http://b.example.org:81/", &[("host", "a.example.org")], Some("b.example.org"));
        check("/", &[], None);
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(host(&old).as_deref(), Some(""));
    }

    #[test]
    fn connections_are_not_upgraded_to_http() {
        let check = |protocol: &str, expected: Option<&str>| {
            let asked =
                upgrade(&request("/", &[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]));
            assert_eq!(asked.as_ref().map(|asked| asked.to_str().unwrap()), expected, "{protocol}");
        };
        check("websocket", Some("websocket"));
        check("SPDY/3.1", Some("SPDY/3.1"));
        check("H2C", None);
        check("websocket, h2c", None);
        check("HTTP/2.0", None);
        assert_eq!(upgrade(&request("/", &[("upgrade", "websocket")])), None, "not asked of this connection");
    }

    #[test]
    fn a_length_told_twice_is_passed_on_once() {
        let mut told = request("/", &[("content-length", "3"), ("transfer-encoding", "chunked")]);
        remove_hop_by_hop(told.headers_mut());
        assert!(told.headers().is_empty());
    }
}
