//! A list on its way out: its text is made piece by piece as the client takes it, so that a list of any length costs
//! no more memory than a few pieces.

use bytes::Bytes;

use crate::body::CHUNK_BYTES;

/// Room beyond a full piece for the item that fills it; only items that are larger make it grow.
const LAST_ITEM_BYTES: usize = 16 << 10;

/// How the items of a list become one text.
pub trait Form<Item> {
    /// Appends an item; `first` tells whether none came before.
    fn push(&mut self, item: Item, first: bool, out: &mut Vec<u8>);

    /// Appends what comes after the last item.
    fn finish(&self, out: &mut Vec<u8>);
}

/// The pieces of a list.
pub struct Pieces<F, I> {
    form: F,
    items: I,
    /// What comes before the first item, until the first piece.
    head: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl<F: Form<I::Item>, I: Iterator> Pieces<F, I> {
    pub fn new(form: F, head: Vec<u8>, items: I) -> Pieces<F, I> {
        Pieces { form, items, head, begun: false, ended: false }
    }
}

impl<F: Form<I::Item>, I: Iterator> Iterator for Pieces<F, I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = std::mem::take(&mut self.head);
        piece.reserve(CHUNK_BYTES + LAST_ITEM_BYTES);
        while piece.len() < CHUNK_BYTES {
            let Some(item) = self.items.next() else {
                self.form.finish(&mut piece);
                self.ended = true;
                break;
            };
            self.form.push(item, !self.begun, &mut piece);
            self.begun = true;
        }
        Some(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers;

    impl Form<u64> for Numbers {
        fn push(&mut self, item: u64, first: bool, out: &mut Vec<u8>) {
            let comma = if first { "" } else { "," };
            out.extend_from_slice(format!("{comma}{item}").as_bytes());
        }

        fn finish(&self, out: &mut Vec<u8>) {
            out.push(b']');
        }
    }

    fn check(count: u64) -> usize {
        let pieces: Vec<Bytes> = Pieces::new(Numbers, b"[".to_vec(), 0..count).collect();
        let numbers: Vec<u64> = serde_json::from_slice(&pieces.concat()).expect("is one list");
        assert!(numbers.into_iter().eq(0..count));
        pieces.len()
    }

    #[test]
    fn pieces_are_one_text_and_none_is_much_larger_than_a_chunk() {
        assert_eq!([0, 1, 2].map(check), [1, 1, 1]);
        assert!(check(100_000) > 5);
        let largest = Pieces::new(Numbers, b"[".to_vec(), 0..100_000).map(|piece| piece.len()).max();
        assert!(largest.is_some_and(|bytes| bytes < CHUNK_BYTES + LAST_ITEM_BYTES));
    }
}
