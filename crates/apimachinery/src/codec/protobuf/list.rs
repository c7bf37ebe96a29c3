//! Lists made item by item. A message says its length before it begins, so the lengths of all items come first; the items
//! themselves may be made one after the other as they are sent.

use bytes::Bytes;

use super::encode::Context;
use super::wire::Writer;
use super::{Error, close_envelope, encode, known_or_only, open_envelope};
use crate::codec::TypeMeta;
use crate::schema::{Schema, TypeId};

/// The name under which every list has its items.
const ITEMS: &str = "items";

/// A list whose items are to come.
#[derive(Debug)]
pub struct List {
    type_meta: TypeMeta,
    /// The message but for its items, which come last in every list.
    message: Bytes,
    items_tag: u32,
    items_bytes: usize,
}

impl List {
    /// `json` is the list without items.
    pub fn new(schema: &Schema, root: TypeId, json: &[u8]) -> Result<List, Error> {
        let no_list = || Error::Type(format!("{} is no list", schema[root].name));
        let items_tag = schema.field(root, ITEMS).ok_or_else(no_list)?.tag;
        let mut message = Writer::default();
        let mut found = TypeMeta::default();
        let context = Context { type_meta: Some(&mut found), alike: None };
        encode::message(schema, root, json, context, &mut message)?;
        let type_meta = known_or_only(schema, root, found);
        Ok(List { type_meta, message: message.finish(), items_tag, items_bytes: 0 })
    }

    /// There will be one more item, of so many bytes.
    pub fn expect(&mut self, item_bytes: usize) {
        self.items_bytes += Writer::length_bytes(self.items_tag, item_bytes) + item_bytes;
    }

    /// Begins with all that comes before the first item, once all are expected.
    pub fn head(&self) -> Vec<u8> {
        let mut writer = open_envelope(&self.type_meta, self.message.len() + self.items_bytes);
        writer.raw(&self.message);
        writer.into()
    }

    /// Appends the message of an item.
    pub fn push_item(&self, message: &[u8], out: &mut Vec<u8>) {
        let mut writer = Writer::from(std::mem::take(out));
        writer.bytes(self.items_tag, message);
        *out = writer.into();
    }

    /// Appends what comes after the last item.
    pub fn push_tail(out: &mut Vec<u8>) {
        let mut writer = Writer::from(std::mem::take(out));
        close_envelope(&mut writer);
        *out = writer.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_the_bytes_that_it_is_said_to_take() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, 1 << 30] {
            for tag in [1, 15, 16, 3000] {
                let mut writer = Writer::default();
                writer.length(tag, length);
                assert_eq!(writer.finish().len(), Writer::length_bytes(tag, length), "{tag} {length}");
            }
        }
    }
}
