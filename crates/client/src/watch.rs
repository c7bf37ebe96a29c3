//! A watch: a response whose lines are events.

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::transport::Body;

/// One frame may hold one object; objects are at most 3 MiB on the wire (etcd's and the API server's limit).
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One event, still encoded.
#[derive(Debug)]
pub struct Frame {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    pub object: Box<RawValue>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    object: Box<RawValue>,
}

/// Splits a response's body into frames.
pub struct WatchStream {
    body: Body,
    buffer: BytesMut,
    /// Bytes of `buffer` already searched for a line end.
    searched: usize,
}

impl WatchStream {
    pub fn new(response: Response<Body>) -> Self {
        WatchStream { body: response.into_body(), buffer: BytesMut::new(), searched: 0 }
    }

    /// The next event, or `None` when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let wire: Wire = serde_json::from_slice(&line)
                    .map_err(|e| Error::Malformed(format!("watch event: {e}")))?;
                return Ok(Some(Frame { kind: wire.kind, object: wire.object }));
            }
            if self.buffer.len() > FRAME_BYTES_MAX {
                return Err(Error::Malformed(format!("watch event is larger than {FRAME_BYTES_MAX} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(Error::Transport(e.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        match self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame as BodyFrame;

    use super::*;

    fn stream(chunks: &[&'static str]) -> WatchStream {
        let frames: Vec<std::result::Result<_, crate::transport::BoxError>> =
            chunks.iter().map(|c| Ok(BodyFrame::data(Bytes::from_static(c.as_bytes())))).collect();
        WatchStream::new(Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()))
    }

    #[tokio::test]
    async fn events_are_whole_however_the_bytes_arrive() {
        let mut watch = stream(&[
            "{\"type\":\"ADDED\",\"obj",
            "ect\":{\"a\":1}}\n\n{\"type\":",
            "\"DELETED\",\"object\":{}}\n",
        ]);
        let first = watch.next().await.expect("reads").expect("an event");
        assert_eq!((first.kind.as_str(), first.object.get()), ("ADDED", "{\"a\":1}"));
        assert_eq!(watch.next().await.expect("reads").expect("an event").kind, "DELETED");
        assert!(watch.next().await.expect("reads").is_none());
    }

    #[tokio::test]
    async fn a_line_that_is_no_event_is_an_error() {
        assert!(matches!(stream(&["nonsense\n"]).next().await, Err(Error::Malformed(_))));
    }
}
