//! Reading attributes out of what the kernel sends. Malformed input ends the iteration: it never
//! panics and never reads past the buffer.

use super::align;

/// Flag bits the kernel may set in an attribute's type (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;

const HEADER_LEN: usize = 4;

/// The attributes in one buffer, as (type, payload).
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(found, _)| *found == kind).map(|(_, payload)| payload)
    }

    /// The attributes nested in the first attribute of this type; none if it is absent.
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..HEADER_LEN)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = self.0.get(HEADER_LEN..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A big-endian number, as nf_tables and conntrack write them.
pub fn u32_be(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

/// A zero-terminated name.
pub fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Message;
    use proptest::prelude::*;

    #[test]
    fn what_a_message_nests_is_found_again() {
        let mut message = Message::new(0, 0);
        message.text(1, "eth0").nest(2, |inner| {
            inner.u32_be(3, 7).bytes(4, &[1, 2, 3]);
        });
        let encoded = message.finish(0, 0);
        let attributes = Attributes(&encoded[16..]);
        assert_eq!(attributes.find(1).map(text).as_deref(), Some("eth0"));
        assert_eq!(attributes.nested(2).find(3).and_then(u32_be), Some(7));
        assert_eq!(attributes.nested(2).find(4), Some(&[1u8, 2, 3][..]));
        assert_eq!(attributes.find(9), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let count = Attributes(&bytes).count();
            prop_assert!(count <= bytes.len() / HEADER_LEN);
        }
    }
}
