//! Protobuf's wire format: keys, varints, lengths.

use bytes::Bytes;

use super::Error;

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            other => Err(wrong_type(other, "length-delimited")),
        }
    }

    pub fn text(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::Syntax("proto: a string is not UTF-8".into()))
    }

    pub fn varint(self) -> Result<u64, Error> {
        match self {
            Wire::Varint(number) => Ok(number),
            other => Err(wrong_type(other, "varint")),
        }
    }

    pub fn double(self) -> Result<f64, Error> {
        match self {
            Wire::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(wrong_type(other, "64-bit")),
        }
    }
}

fn wrong_type(found: Wire<'_>, wanted: &str) -> Error {
    Error::Syntax(format!("proto: wrong wire type: found {found:.0?}, wanted {wanted}"))
}

fn truncated() -> Error {
    Error::Syntax("unexpected EOF".into())
}

/// Reads the fields of one message.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and value.
    pub fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag != 0);
        let tag = tag.ok_or_else(|| Error::Syntax(format!("proto: illegal tag {}", key >> 3)))?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Error::Syntax(format!("proto: illegal wireType {other}"))),
        };
        Ok(Some((tag, value)))
    }

    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Syntax("proto: integer overflow".into()))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("the slice has the length asked for"))
    }
}

/// Writes the fields of one message.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl From<Vec<u8>> for Writer {
    fn from(start: Vec<u8>) -> Self {
        Writer { bytes: start }
    }
}

impl From<Writer> for Vec<u8> {
    fn from(writer: Writer) -> Self {
        writer.bytes
    }
}

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }

    pub fn varint(&mut self, tag: u32, number: u64) {
        self.key(tag, 0);
        self.raw_varint(number);
    }

    pub fn double(&mut self, tag: u32, number: f64) {
        self.key(tag, 1);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub fn text(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    pub fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.length(tag, bytes.len());
        self.raw(bytes);
    }

    /// The beginning of a field of so many bytes, which are to follow.
    #[inline]
    pub fn length(&mut self, tag: u32, bytes: usize) {
        self.key(tag, 2);
        self.raw_varint(bytes as u64);
    }

    /// How many bytes `length` writes.
    pub fn length_bytes(tag: u32, bytes: usize) -> usize {
        varint_bytes(u64::from(tag) << 3) + varint_bytes(bytes as u64)
    }

    /// What is encoded already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is written, to append to.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn message(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let start = self.open(tag);
        content(self);
        self.close(start);
    }

    /// Begins a field whose length is not known yet, and tells where its content starts.
    pub fn open(&mut self, tag: u32) -> usize {
        self.key(tag, 2);
        // Most are shorter than what one byte can say.
        self.bytes.push(0);
        self.bytes.len()
    }

    /// Ends the field whose content starts here.
    pub fn close(&mut self, start: usize) {
        let end = self.bytes.len();
        let mut length = end - start;
        let moved = varint_bytes(length as u64) - 1;
        if moved > 0 {
            self.bytes.resize(end + moved, 0);
            self.bytes.copy_within(start..end, start + moved);
        }
        for byte in &mut self.bytes[start - 1..start + moved] {
            *byte = length as u8 | 0x80;
            length >>= 7;
        }
        self.bytes[start + moved - 1] &= 0x7f;
    }

    fn key(&mut self, tag: u32, wire_type: u64) {
        self.raw_varint(u64::from(tag) << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

/// Seven bits go into each byte.
fn varint_bytes(number: u64) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_is_known_last_is_written_as_one_that_is_known_first() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 21] {
            let content: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let (mut last, mut first) = (Writer::default(), Writer::default());
            last.message(3, |out| out.message(500, |out| out.raw(&content)));
            first.length(3, Writer::length_bytes(500, length) + length);
            first.bytes(500, &content);
            assert_eq!(last.finish(), first.finish(), "{length}");
        }
    }
}
