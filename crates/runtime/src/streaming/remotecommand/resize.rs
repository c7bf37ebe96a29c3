//! The resize stream: JSON objects one after another, each a terminal size.

use tokio::{io::AsyncReadExt, sync::mpsc};

use crate::streaming::{Reader, TerminalSize};

/// Sizes waiting to be applied; then the stream waits.
const PENDING_SIZES: usize = 8;
/// Largest object accepted.
const MAX_OBJECT_BYTES: usize = 4096;

/// Decodes `reader` in a task of its own, until it ends, is malformed, or nobody receives.
pub(super) fn receive(mut reader: Reader) -> mpsc::Receiver<TerminalSize> {
    let (sender, receiver) = mpsc::channel(PENDING_SIZES);
    tokio::spawn(async move {
        let mut pending = Vec::new();
        while let Ok(1..) = reader.read_buf(&mut pending).await {
            let Some(sizes) = take_sizes(&mut pending) else {
                tracing::debug!("malformed terminal size");
                return;
            };
            for size in sizes {
                if sender.send(size).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// Removes the complete objects from `pending`; `None` when it cannot be a row of sizes.
fn take_sizes(pending: &mut Vec<u8>) -> Option<Vec<TerminalSize>> {
    let mut objects = serde_json::Deserializer::from_slice(pending).into_iter::<TerminalSize>();
    let mut sizes = Vec::new();
    let mut end = 0;
    while let Some(object) = objects.next() {
        match object {
            Ok(size) => sizes.push(size),
            Err(error) if error.is_eof() => break,
            Err(_) => return None,
        }
        end = objects.byte_offset();
    }
    pending.drain(..end);
    (pending.len() <= MAX_OBJECT_BYTES).then_some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_however_the_bytes_are_cut() {
        let mut pending = br#"{"Width":80,"Height":24}{"Width":1"#.to_vec();
        assert_eq!(take_sizes(&mut pending), Some(vec![TerminalSize { width: 80, height: 24 }]));
        pending.extend_from_slice(br#"00,"Height":30}"#);
        assert_eq!(take_sizes(&mut pending), Some(vec![TerminalSize { width: 100, height: 30 }]));
        assert!(pending.is_empty());
    }

    #[test]
    fn what_is_no_size_ends_the_stream() {
        assert_eq!(take_sizes(&mut b"{\"Width\":70000,\"Height\":1}".to_vec()), None);
        assert_eq!(take_sizes(&mut b"]".to_vec()), None);
        assert_eq!(take_sizes(&mut b"{".to_vec()), Some(vec![]));
        assert_eq!(take_sizes(&mut vec![b' '; MAX_OBJECT_BYTES + 1]), None);
    }
}
