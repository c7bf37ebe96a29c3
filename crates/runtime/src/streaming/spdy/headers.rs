//! Header blocks: name and value pairs, and their compression.
//!
//! All header blocks of one direction of a connection share one zlib stream, primed with the
//! SPDY/3 dictionary; each block ends at a sync flush. So a block that does not decompress
//! ends the connection: what follows could not be read either.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::DICTIONARY;

/// Largest header block after decompression. Kubernetes' streams carry three short headers;
/// the limit stops a small frame from inflating into much memory.
pub const MAX_HEADER_BLOCK_BYTES: usize = 64 * 1024;

/// Bytes the (de)compressor's output buffer grows by.
const GROW_BYTES: usize = 1024;

/// Why a header block could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("decompress header block: {0}")]
    Decompress(#[from] flate2::DecompressError),
    #[error("compress header block: {0}")]
    Compress(#[from] flate2::CompressError),
    #[error("header block exceeds {MAX_HEADER_BLOCK_BYTES} bytes")]
    TooLarge,
    #[error("header block ends early")]
    Truncated,
    #[error("header is not UTF-8")]
    NotUtf8,
}

/// The headers of a stream, in order. Names are lower case, as they are on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Adds one header; the name is lowered.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The first value of `name`, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.split('\0').next().unwrap_or_default())
    }

    /// Name-value block as the SPDY/3 draft (2.6.10) lays it out, uncompressed.
    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(128);
        block.put_u32(self.0.len() as u32);
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(part.len() as u32);
            block.put_slice(part.as_bytes());
        }
        block
    }

    fn decode(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = take_u32(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((take_string(&mut block)?.to_ascii_lowercase(), take_string(&mut block)?));
        }
        Ok(Self(headers))
    }
}

fn take_u32(block: &mut &[u8]) -> Result<usize, HeaderError> {
    let value = block.try_get_u32().map_err(|_| HeaderError::Truncated)?;
    Ok(value as usize)
}

fn take_string(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = take_u32(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(HeaderError::Truncated)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HeaderError::NotUtf8)
}

/// Compresses the header blocks one side sends.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&DICTIONARY).expect("a new compressor takes a dictionary");
        Self(compress)
    }

    pub(super) fn compress(&mut self, headers: &Headers) -> Result<Vec<u8>, HeaderError> {
        let block = headers.encode();
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(block.len() + GROW_BYTES);
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            self.0.compress_vec(&block[consumed..], &mut out, FlushCompress::Sync)?;
            let all_in = (self.0.total_in() - start) as usize == block.len();
            if all_in && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(GROW_BYTES);
        }
    }
}

/// Decompresses the header blocks the other side sends.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn decompress(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(GROW_BYTES);
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            let (length, total) = (out.len(), self.0.total_in());
            let result = self.0.decompress_vec(&block[consumed..], &mut out, FlushDecompress::Sync);
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY)?;
                    continue;
                }
                result => drop(result?),
            }
            if out.len() > MAX_HEADER_BLOCK_BYTES {
                return Err(HeaderError::TooLarge);
            }
            let consumed = (self.0.total_in() - start) as usize;
            if consumed == block.len() && out.len() < out.capacity() {
                return Headers::decode(&out);
            }
            if out.len() == length && self.0.total_in() == total && out.len() < out.capacity() {
                return Err(HeaderError::Truncated);
            }
            out.reserve(GROW_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_that_inflates_past_the_limit_is_refused() {
        let huge = Headers::default().with("a", "x".repeat(MAX_HEADER_BLOCK_BYTES + GROW_BYTES));
        let block = Deflater::new().compress(&huge).unwrap();
        assert!(block.len() < 4096);
        assert!(matches!(Inflater::new().decompress(&block), Err(HeaderError::TooLarge)));
    }

    #[test]
    fn header_names_are_found_whatever_their_case() {
        let headers = Headers::default().with("streamType", "stdin");
        assert_eq!(headers.get("StreamType"), Some("stdin"));
        assert_eq!(headers.get("port"), None);
    }

    proptest! {
        #[test]
        fn blocks_of_one_connection_survive_the_shared_compressor(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,12}", "[ -~]{0,300}"), 0..6), 1..6)
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for block in blocks {
                let headers = Headers(block);
                let bytes = deflater.compress(&headers).unwrap();
                prop_assert_eq!(inflater.decompress(&bytes).unwrap(), headers);
            }
        }

        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(Inflater::new().decompress(&garbage));
            drop(Headers::decode(&garbage));
        }
    }
}
