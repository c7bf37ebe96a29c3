//! Agreement on a protocol between a client's offers and what is served here.
//!
//! Follows httpstream.Handshake: the client's order decides, and a client that offers nothing is
//! one from before negotiation.

use http::{HeaderMap, header};

/// Header in which SPDY clients offer stream protocols and the server names its choice.
pub(super) const STREAM_PROTOCOL_VERSION: &str = "x-stream-protocol-version";
/// Header that lists what the server would have accepted.
pub(super) const ACCEPTED_STREAM_PROTOCOL_VERSIONS: &str = "x-accepted-stream-protocol-versions";

/// How a request asks for its connection to be used from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    Spdy,
    WebSocket,
}

/// Nothing the client offered is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoCommonProtocol {
    pub(super) offered: Vec<String>,
}

/// Which upgrade the headers ask for, if any that is known.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    if !values(headers, "connection").any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    values(headers, "upgrade").find_map(|token| match token {
        token if token.eq_ignore_ascii_case("websocket") => Some(Upgrade::WebSocket),
        token if token.eq_ignore_ascii_case("SPDY/3.1") => Some(Upgrade::Spdy),
        _ => None,
    })
}

/// The header that carries the offers of this kind of upgrade.
pub(super) fn offer_header(upgrade: Upgrade) -> &'static str {
    match upgrade {
        Upgrade::Spdy => STREAM_PROTOCOL_VERSION,
        Upgrade::WebSocket => header::SEC_WEBSOCKET_PROTOCOL.as_str(),
    }
}

/// The first protocol the client offers under `name` that is among `served`; `None` when it
/// offers none at all.
pub(super) fn protocol(
    headers: &HeaderMap,
    name: &str,
    served: &[&'static str],
) -> Result<Option<&'static str>, NoCommonProtocol> {
    let mut offered = values(headers, name).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let find = |offer: &str| served.iter().copied().find(|served| *served == offer);
    match offered.find_map(find) {
        Some(protocol) => Ok(Some(protocol)),
        None => Err(NoCommonProtocol { offered: values(headers, name).map(str::to_owned).collect() }),
    }
}

/// All comma-separated values of all headers called `name`.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_clients_order_decides() {
        let offers = headers(&[("a", "v9, v2"), ("a", "v1")]);
        assert_eq!(protocol(&offers, "a", &["v1", "v2"]), Ok(Some("v2")));
    }

    #[test]
    fn a_client_without_offers_is_not_refused_and_one_with_wrong_offers_is() {
        assert_eq!(protocol(&headers(&[]), "a", &["v1"]), Ok(None));
        let refused = Err(NoCommonProtocol { offered: vec!["v7".to_owned()] });
        assert_eq!(protocol(&headers(&[("a", "v7")]), "a", &["v1"]), refused);
    }

    #[test]
    fn upgrades_need_both_headers() {
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(upgrade(&both), Some(Upgrade::Spdy));
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None);
        let other = headers(&[("connection", "Upgrade"), ("upgrade", "h2c")]);
        assert_eq!(upgrade(&other), None);
    }
}
