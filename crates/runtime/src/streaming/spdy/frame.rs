//! SPDY/3.1 frames and their codec.
//!
//! A frame is an 8-byte head (control bit, version and type or stream id; flags; 24-bit length)
//! and a payload. Data is handed on in the pieces in which it arrives, so a data frame of any
//! length needs no buffer of that length; control frames are bounded. Unknown control frames are
//! skipped, as the draft asks. Follows moby/spdystream's `spdy` package where the draft is loose.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::headers::{Deflater, HeaderError, Headers, Inflater};

/// Largest control frame payload accepted.
pub const MAX_CONTROL_FRAME_BYTES: usize = 64 * 1024;
/// Largest payload of a data frame sent; more is split.
pub const MAX_DATA_FRAME_BYTES: usize = 32 * 1024;

const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const CONTROL_BIT: u32 = 0x8000_0000;
const LENGTH_MASK: u32 = 0x00ff_ffff;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Identifies a stream: odd when the client opened it, even when the server did.
pub type StreamId = u32;

/// Status codes of `RST_STREAM` that are sent here; any other is accepted.
pub mod reset {
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const REFUSED_STREAM: u32 = 3;
}

/// The setting that gives new streams' send window.
pub const SETTING_INITIAL_WINDOW_SIZE: u32 = 7;

/// One SPDY frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: StreamId,
        associated: StreamId,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        id: StreamId,
        status: u32,
    },
    /// Pairs of setting and value; the settings' persistence flags are dropped.
    Settings {
        values: Vec<(u32, u32)>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_good: StreamId,
        status: u32,
    },
    Headers {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    /// `id` 0 is the window of the whole connection.
    WindowUpdate {
        id: StreamId,
        delta: u32,
    },
    Data {
        id: StreamId,
        fin: bool,
        data: Bytes,
    },
}

/// Why the frames of a connection cannot be read or written further.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("SPDY transport: {0}")]
    Io(#[from] std::io::Error),
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("control frame of {0} bytes exceeds {MAX_CONTROL_FRAME_BYTES}")]
    TooLarge(usize),
    #[error("control frame of type {0} is malformed")]
    Malformed(u16),
    #[error("frame names stream 0")]
    ZeroStreamId,
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// What the decoder is in the middle of.
enum Expect {
    Head,
    /// The rest of a data frame whose head has been read.
    Data {
        id: StreamId,
        fin: bool,
        left: usize,
    },
    Control {
        kind: u16,
        flags: u8,
        length: usize,
    },
}

/// Reads frames; one per direction, since headers share a compression state.
pub struct FrameDecoder {
    expect: Expect,
    inflater: Inflater,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self { expect: Expect::Head, inflater: Inflater::new() }
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.expect {
                Expect::Head if source.len() < HEAD_BYTES => return Ok(None),
                Expect::Head => self.expect = read_head(source)?,
                Expect::Data { left, .. } if source.is_empty() && left > 0 => return Ok(None),
                Expect::Data { id, fin, left } => return Ok(Some(self.read_data(source, id, fin, left))),
                Expect::Control { length, .. } if source.len() < length => {
                    source.reserve(length - source.len());
                    return Ok(None);
                }
                Expect::Control { kind, flags, length } => {
                    self.expect = Expect::Head;
                    let payload = source.split_to(length);
                    if let Some(frame) = self.read_control(kind, flags, &payload)? {
                        return Ok(Some(frame));
                    }
                }
            }
        }
    }
}

impl FrameDecoder {
    fn read_data(&mut self, source: &mut BytesMut, id: StreamId, fin: bool, left: usize) -> Frame {
        let data = source.split_to(left.min(source.len())).freeze();
        let left = left - data.len();
        self.expect = if left == 0 { Expect::Head } else { Expect::Data { id, fin, left } };
        Frame::Data { id, fin: fin && left == 0, data }
    }

    fn read_control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut rest = payload;
        let fin = flags & FLAG_FIN != 0;
        let frame = match kind {
            SYN_STREAM => {
                let (id, associated) = (stream_id(&mut rest, kind)?, word(&mut rest, kind)?);
                let priority = rest.try_get_u8().map_err(|_| FrameError::Malformed(kind))? >> 5;
                rest.try_get_u8().map_err(|_| FrameError::Malformed(kind))?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                let headers = self.inflater.decompress(rest)?;
                Frame::SynStream { id, associated, priority, fin, unidirectional, headers }
            }
            SYN_REPLY => Frame::SynReply {
                id: stream_id(&mut rest, kind)?,
                fin,
                headers: self.inflater.decompress(rest)?,
            },
            HEADERS => Frame::Headers {
                id: stream_id(&mut rest, kind)?,
                fin,
                headers: self.inflater.decompress(rest)?,
            },
            RST_STREAM => {
                Frame::RstStream { id: stream_id(&mut rest, kind)?, status: word(&mut rest, kind)? }
            }
            SETTINGS => Frame::Settings { values: settings(&mut rest)? },
            PING => Frame::Ping { id: word(&mut rest, kind)? },
            GOAWAY => Frame::GoAway { last_good: word(&mut rest, kind)?, status: word(&mut rest, kind)? },
            WINDOW_UPDATE => Frame::WindowUpdate {
                id: word(&mut rest, kind)? & !CONTROL_BIT,
                delta: word(&mut rest, kind)? & !CONTROL_BIT,
            },
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

fn read_head(source: &mut BytesMut) -> Result<Expect, FrameError> {
    let first = source.get_u32();
    let second = source.get_u32();
    let flags = (second >> 24) as u8;
    let length = (second & LENGTH_MASK) as usize;
    if first & CONTROL_BIT == 0 {
        let fin = flags & FLAG_FIN != 0;
        return match first {
            0 => Err(FrameError::ZeroStreamId),
            id => Ok(Expect::Data { id, fin, left: length }),
        };
    }
    let version = (first >> 16) as u16 & 0x7fff;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    if length > MAX_CONTROL_FRAME_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    Ok(Expect::Control { kind: first as u16, flags, length })
}

fn word(rest: &mut &[u8], kind: u16) -> Result<u32, FrameError> {
    rest.try_get_u32().map_err(|_| FrameError::Malformed(kind))
}

fn stream_id(rest: &mut &[u8], kind: u16) -> Result<StreamId, FrameError> {
    match word(rest, kind)? & !CONTROL_BIT {
        0 => Err(FrameError::ZeroStreamId),
        id => Ok(id),
    }
}

fn settings(rest: &mut &[u8]) -> Result<Vec<(u32, u32)>, FrameError> {
    let count = word(rest, SETTINGS)?;
    // The payload bounds the pairs that can be read, whatever `count` claims.
    (0..count).map(|_| Ok((word(rest, SETTINGS)? & LENGTH_MASK, word(rest, SETTINGS)?))).collect()
}

/// Writes frames; one per direction.
pub struct FrameEncoder {
    deflater: Deflater,
}

impl Default for FrameEncoder {
    fn default() -> Self {
        Self { deflater: Deflater::new() }
    }
}

impl Encoder<Frame> for FrameEncoder {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        match frame {
            Frame::Data { id, fin, data } => put_data(out, id, fin, &data),
            Frame::SynStream { id, associated, priority, fin, unidirectional, headers } => {
                let mut payload = words(&[id, associated]);
                payload.put_slice(&[priority << 5, 0]);
                payload.put_slice(&self.deflater.compress(&headers)?);
                let flag = if unidirectional { FLAG_UNIDIRECTIONAL } else { 0 };
                put_control(out, SYN_STREAM, u8::from(fin) | flag, &payload);
            }
            Frame::SynReply { id, fin, headers } => self.put_headers(out, SYN_REPLY, id, fin, &headers)?,
            Frame::Headers { id, fin, headers } => self.put_headers(out, HEADERS, id, fin, &headers)?,
            Frame::RstStream { id, status } => put_control(out, RST_STREAM, 0, &words(&[id, status])),
            Frame::Settings { values } => {
                let mut payload = words(&[values.len() as u32]);
                values.iter().for_each(|(id, value)| payload.put_slice(&words(&[*id, *value])));
                put_control(out, SETTINGS, 0, &payload);
            }
            Frame::Ping { id } => put_control(out, PING, 0, &words(&[id])),
            Frame::GoAway { last_good, status } => put_control(out, GOAWAY, 0, &words(&[last_good, status])),
            Frame::WindowUpdate { id, delta } => put_control(out, WINDOW_UPDATE, 0, &words(&[id, delta])),
        }
        Ok(())
    }
}

impl FrameEncoder {
    fn put_headers(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        id: u32,
        fin: bool,
        headers: &Headers,
    ) -> Result<(), FrameError> {
        let mut payload = words(&[id]);
        payload.put_slice(&self.deflater.compress(headers)?);
        put_control(out, kind, u8::from(fin), &payload);
        Ok(())
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, payload: &[u8]) {
    out.put_u32(CONTROL_BIT | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | payload.len() as u32 & LENGTH_MASK);
    out.put_slice(payload);
}

fn put_data(out: &mut BytesMut, id: StreamId, fin: bool, data: &[u8]) {
    debug_assert!(data.len() <= MAX_DATA_FRAME_BYTES, "writers split data");
    out.put_u32(id & !CONTROL_BIT);
    out.put_u32(u32::from(fin) << 24 | data.len() as u32);
    out.put_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Headers> {
        proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,40}"), 0..4).prop_map(|pairs| {
            pairs.into_iter().fold(Headers::default(), |all, (name, value)| all.with(&name, value))
        })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let id = 1..0x7fff_ffffu32;
        prop_oneof![
            (id.clone(), 0..9u32, 0..8u8, any::<bool>(), any::<bool>(), headers()).prop_map(
                |(id, associated, priority, fin, unidirectional, headers)| Frame::SynStream {
                    id,
                    associated,
                    priority,
                    fin,
                    unidirectional,
                    headers
                }
            ),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply {
                id,
                fin,
                headers
            }),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers {
                id,
                fin,
                headers
            }),
            (id.clone(), 1..12u32).prop_map(|(id, status)| Frame::RstStream { id, status }),
            proptest::collection::vec((1..9u32, any::<u32>()), 0..4)
                .prop_map(|values| Frame::Settings { values }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (0..9u32, 0..3u32).prop_map(|(last_good, status)| Frame::GoAway { last_good, status }),
            (0..9u32, 1..0x7fff_ffffu32).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
            (id, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200))
                .prop_map(|(id, fin, data)| Frame::Data { id, fin, data: data.into() }),
        ]
    }

    fn decode_all(decoder: &mut FrameDecoder, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut source = BytesMut::from(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.decode(&mut source)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_data_frame_arrives_in_pieces_and_only_the_last_carries_fin() {
        let mut bytes = BytesMut::new();
        put_data(&mut bytes, 5, true, b"hello");
        let mut decoder = FrameDecoder::default();
        let mut source = bytes.split_to(10);
        let piece = |fin, data: &'static [u8]| Some(Frame::Data { id: 5, fin, data: data.into() });
        assert_eq!(decoder.decode(&mut source).unwrap(), piece(false, b"he"));
        assert_eq!(decoder.decode(&mut source).unwrap(), None);
        assert_eq!(decoder.decode(&mut bytes).unwrap(), piece(true, b"llo"));
    }

    #[test]
    fn a_control_frame_at_the_limit_is_taken_and_one_past_it_refused() {
        let frame = |length: usize| {
            let mut out = BytesMut::new();
            put_control(&mut out, 77, 0, &vec![0; length]);
            decode_all(&mut FrameDecoder::default(), &out)
        };
        assert_eq!(frame(MAX_CONTROL_FRAME_BYTES).unwrap(), []);
        assert!(matches!(frame(MAX_CONTROL_FRAME_BYTES + 1), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn other_versions_and_stream_zero_are_refused() {
        let decode = |bytes: &[u8]| decode_all(&mut FrameDecoder::default(), bytes);
        assert!(matches!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 0]), Err(FrameError::Version(2))));
        assert!(matches!(decode(&[0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::ZeroStreamId)));
        assert!(matches!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 1, 9]), Err(FrameError::Malformed(PING))));
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire(frames in proptest::collection::vec(frame(), 1..12)) {
            let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame.clone(), &mut bytes).unwrap();
            }
            prop_assert_eq!(decode_all(&mut FrameDecoder::default(), &bytes).unwrap(), frames);
        }

        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(decode_all(&mut FrameDecoder::default(), &garbage));
        }
    }
}
