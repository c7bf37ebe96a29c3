//! WebSockets (RFC 6455) as Kubernetes uses them: `channels` multiplexes streams by a first byte
//! in each message, `tunnel` carries a byte stream (in it SPDY) in binary messages.
//!
//! The HTTP side of the handshake is here; the framing is tungstenite's.

mod channels;
mod tunnel;

use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

pub use channels::{ChannelWriter, Connection, Encoding, V1, V1_BASE64, V4, V4_BASE64, V5};
pub use tunnel::tunnel;

/// Largest message accepted (golang.org/x/net/websocket's DefaultMaxPayloadBytes).
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Bytes read from the transport at once.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// The one protocol version there is.
const VERSION: &str = "13";

/// Why a request is no WebSocket handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("Sec-WebSocket-Version is not {VERSION}")]
    Version,
    #[error("Sec-WebSocket-Key is missing")]
    Key,
}

/// Headers of the 101 response to a client's handshake.
pub fn accept(request: &HeaderMap, protocol: Option<&'static str>) -> Result<HeaderMap, HandshakeError> {
    if request.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(HandshakeError::Version);
    }
    let key = request.get(header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| HandshakeError::Key)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(headers)
}

/// Frames over a connection whose handshake is done.
pub async fn over<S: AsyncRead + AsyncWrite + Unpin>(io: S, role: Role) -> WebSocketStream<S> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER_BYTES;
    config.write_buffer_size = READ_BUFFER_BYTES;
    config.max_message_size = Some(MAX_MESSAGE_BYTES);
    config.max_frame_size = Some(MAX_MESSAGE_BYTES);
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}
