//! What objects that are encoded one after the other have in common: pods of one template have the same containers,
//! and objects of one manager the same fields managed. A part that was encoded before is found by its text.

use super::text::Text;
use super::wire::Writer;
use crate::schema::TypeId;

/// Fields that are remembered at a time. A pod with one container has some thirty that are objects or lists.
const PARTS: usize = 64;

/// A shorter part is encoded as soon as it is found.
const PART_BYTES_MIN: usize = 24;

/// Of a longer part, what is in it is remembered.
const PART_BYTES_MAX: usize = 4 << 10;

/// The field of a type, by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub of: TypeId,
    pub at: usize,
}

/// For each field, the text that it last had and what that was encoded to.
#[derive(Debug, Default)]
pub struct Alike {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    place: Place,
    /// How deep the text is: how deep it may go on depends on it.
    depth: usize,
    text: Vec<u8>,
    encoded: Vec<u8>,
}

impl Alike {
    /// Where a field is remembered, unless another of its place in the table came after it.
    fn part(&mut self, Place { of, at }: Place) -> &mut Part {
        if self.parts.is_empty() {
            self.parts.resize(PARTS, Part::default());
        }
        &mut self.parts[(of.index().wrapping_mul(31) + at) % PARTS]
    }

    /// Encodes the value that is next, if it is the one that the field had last.
    pub fn repeat(&mut self, place: Place, text: &mut Text<'_>, out: &mut Writer) -> bool {
        let part = self.part(place);
        let is_same = !part.text.is_empty()
            && part.place == place
            && part.depth == text.depth()
            && text.pass(&part.text);
        if is_same {
            out.raw(&part.encoded);
        }
        is_same
    }

    /// Remembers a value that ends by itself - an object or a list - and what it was encoded to.
    pub fn keep(&mut self, place: Place, depth: usize, text: &[u8], encoded: &[u8]) {
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&text.len()) {
            return;
        }
        let part = self.part(place);
        (part.place, part.depth) = (place, depth);
        for (kept, new) in [(&mut part.text, text), (&mut part.encoded, encoded)] {
            kept.clear();
            kept.extend_from_slice(new);
        }
    }
}
