//! Logs and watches over WebSocket, for clients that cannot read a response as it comes, such as browsers.
//! Follows `k8s.io/streaming/pkg/httpstream/wsstream` (`Reader`) and the watch handler's `HandleWS`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::audit::Record;
use crate::body::{self, Body};
use crate::request_info::RequestInfo;

/// Subprotocols a log may be read by; a client that asks for none gets the first.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// How a response's bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// As they come.
    Binary,
    /// As they come, in base64, for clients that take only text.
    Base64,
    /// Each line by itself: one event of a watch.
    Lines,
}

/// A client's wish to read a response over WebSocket.
pub struct Wish {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
    framing: Framing,
}

impl Wish {
    /// `None` when the request does not ask for it, or is none that can be read so.
    pub fn of(headers: &HeaderMap, info: &RequestInfo) -> Option<Wish> {
        let is_log = info.verb == "get" && info.subresource == "log";
        if !(is_log || info.verb == "watch") || !asks_for_websocket(headers) {
            return None;
        }
        let accept = derive_accept_key(headers.get(SEC_WEBSOCKET_KEY)?.as_bytes());
        let offered: Vec<&str> = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let protocol = [BINARY, BASE64].into_iter().find(|known| is_log && offered.contains(known));
        let framing = match protocol {
            _ if !is_log => Framing::Lines,
            Some(BASE64) => Framing::Base64,
            _ => Framing::Binary,
        };
        let protocol = protocol.map(HeaderValue::from_static);
        Some(Wish { accept: accept.parse().ok()?, protocol, framing })
    }

    /// Switches protocols and sends the response's body; what the client sends is not looked at. The audit log is told
    /// of the end of it.
    pub fn fulfil(
        self,
        upgrade: Option<OnUpgrade>,
        response: Response<Body>,
        audit: Option<Arc<Record>>,
    ) -> Response<Body> {
        let Some(upgrade) = upgrade.filter(|_| response.status().is_success()) else { return response };
        let framing = self.framing;
        tokio::spawn(async move {
            let _held = audit;
            match upgrade.await {
                Ok(upgraded) => {
                    if let Err(error) = send(upgraded, response.into_body(), framing).await {
                        tracing::debug!(%error, "a WebSocket broke off");
                    }
                }
                Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
            }
        });
        let mut switched = Response::new(body::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let mut put = |name: HeaderName, value| switched.headers_mut().insert(name, value);
        put(UPGRADE, HeaderValue::from_static("websocket"));
        put(CONNECTION, HeaderValue::from_static("Upgrade"));
        put(SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            put(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        switched
    }
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name);
        values.iter().filter_map(|v| v.to_str().ok()).any(|v| v.to_ascii_lowercase().contains(word))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// Sends until the body ends or the client goes.
async fn send(upgraded: Upgraded, mut body: Body, framing: Framing) -> Result<(), WebSocketError> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (mut sink, mut stream) = socket.split();
    let mut messages = Messages { framing, open: BytesMut::new() };
    loop {
        tokio::select! {
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                for message in messages.of(&data) {
                    sink.send(message).await?;
                }
            }
            // Reading answers the client's pings, and tells when it has gone.
            received = stream.next() => match received {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(other) => drop(other?),
            },
        }
    }
    sink.close().await
}

struct Messages {
    framing: Framing,
    /// The beginning of a line whose end has not come.
    open: BytesMut,
}

impl Messages {
    fn of(&mut self, data: &Bytes) -> Vec<Message> {
        match self.framing {
            Framing::Binary => vec![Message::Binary(data.clone())],
            Framing::Base64 => {
                use base64::Engine as _;
                vec![Message::text(base64::engine::general_purpose::STANDARD.encode(data))]
            }
            Framing::Lines => self.lines(data),
        }
    }

    fn lines(&mut self, data: &[u8]) -> Vec<Message> {
        self.open.extend_from_slice(data);
        let mut lines = Vec::new();
        while let Some(end) = self.open.iter().position(|byte| *byte == b'\n') {
            let line = self.open.split_to(end + 1);
            lines.push(Message::text(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    fn wish(path: &str, protocols: &str) -> Option<Framing> {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| headers.insert(name, value.parse().expect("a header"));
        put(CONNECTION, "keep-alive, Upgrade");
        put(UPGRADE, "websocket");
        put(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        put(SEC_WEBSOCKET_PROTOCOL, protocols);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let info = RequestInfo::parse(&Method::GET, path, &Query::parse(query));
        Wish::of(&headers, &info).map(|wish| wish.framing)
    }

    #[test]
    fn logs_and_watches_only_are_read_over_websocket() {
        let log = "/api/v1/namespaces/a/pods/p/log";
        assert_eq!(wish(log, "binary.k8s.io"), Some(Framing::Binary));
        assert_eq!(wish(log, "x, base64.binary.k8s.io"), Some(Framing::Base64));
        assert_eq!(wish(log, ""), Some(Framing::Binary));
        assert_eq!(wish("/api/v1/pods?watch=true", ""), Some(Framing::Lines));
        assert_eq!(wish("/api/v1/namespaces/a/pods/p/exec", "v5.channel.k8s.io"), None);
        assert_eq!(wish("/api/v1/pods", ""), None);
    }

    #[test]
    fn each_event_is_a_message_however_the_bytes_come() {
        let mut messages = Messages { framing: Framing::Lines, open: BytesMut::new() };
        assert!(messages.of(&Bytes::from_static(b"{\"a\"")).is_empty());
        let two = messages.of(&Bytes::from_static(b":1}\n{}\n{"));
        assert_eq!(two, [Message::text("{\"a\":1}"), Message::text("{}")]);
    }
}
