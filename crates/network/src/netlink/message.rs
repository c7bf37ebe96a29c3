//! One request under construction: `nlmsghdr`, the family's own header, then attributes.

use super::align;

const HEADER_LEN: usize = 16;

/// `NLA_F_NESTED`: newer kernels refuse a nested attribute without it.
const NESTED: u16 = 0x8000;

/// A netlink message; lengths are filled in by [`Message::finish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `flags` are added to `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: u16) -> Message {
        Message { kind, flags: flags | libc::NLM_F_REQUEST as u16, body: Vec::new() }
    }

    /// Adds flags, such as the ones a socket needs to hear an acknowledgement.
    pub fn with_flags(mut self, flags: u16) -> Message {
        self.flags |= flags;
        self
    }

    /// Appends a family's fixed header.
    pub fn header(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self.pad()
    }

    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = u16::try_from(payload.len() + 4).expect("an attribute is shorter than 64 KiB");
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(payload);
        self.pad()
    }

    /// A zero-terminated name.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// In the machine's byte order, as rtnetlink writes numbers.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nf_tables writes numbers.
    pub fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u64_be(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute holding what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.body.len();
        self.bytes(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.body.len() - start).expect("an attribute is shorter than 64 KiB");
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The bytes to send. `port` is the sender's, zero to let the kernel fill it in.
    pub fn finish(&self, sequence: u32, port: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + self.body.len()).expect("a message is shorter than 4 GiB");
        let mut encoded = Vec::with_capacity(length as usize);
        encoded.extend_from_slice(&length.to_ne_bytes());
        encoded.extend_from_slice(&self.kind.to_ne_bytes());
        encoded.extend_from_slice(&self.flags.to_ne_bytes());
        encoded.extend_from_slice(&sequence.to_ne_bytes());
        encoded.extend_from_slice(&port.to_ne_bytes());
        encoded.extend_from_slice(&self.body);
        encoded
    }

    fn pad(&mut self) -> &mut Self {
        self.body.resize(align(self.body.len()), 0);
        self
    }
}
