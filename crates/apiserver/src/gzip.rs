//! Compressed answers, made piece by piece like the answers themselves.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::body::CHUNK_BYTES;

/// The compressed form of some pieces. Ends with what the last of them leaves.
pub struct Gzip<I> {
    pieces: I,
    /// None once all is said.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I: Iterator<Item = Bytes>> Gzip<I> {
    pub fn new(pieces: I) -> Gzip<I> {
        Gzip { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Gzip<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut encoder = self.encoder.take()?;
        for piece in self.pieces.by_ref() {
            encoder.write_all(&piece).expect("writing to memory does not fail");
            if encoder.get_ref().len() >= CHUNK_BYTES {
                let made = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Some(made.into());
            }
        }
        Some(encoder.finish().expect("writing to memory does not fail").into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn check(sizes: &[usize]) -> usize {
        // No byte tells of the next, so that nothing can be compressed away.
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        let pieces: Vec<Bytes> =
            sizes.iter().map(|size| (0..*size).map(|_| random()).collect::<Vec<u8>>().into()).collect();
        let compressed: Vec<Bytes> = Gzip::new(pieces.clone().into_iter()).collect();
        let mut plain = Vec::new();
        GzDecoder::new(&compressed.concat()[..]).read_to_end(&mut plain).expect("is whole");
        assert_eq!(plain, pieces.concat());
        compressed.len()
    }

    #[test]
    fn compressed_pieces_are_one_text() {
        assert_eq!(check(&[]), 1);
        assert_eq!(check(&[10, 20]), 1);
        assert!(check(&[CHUNK_BYTES; 5]) > 3);
    }
}
