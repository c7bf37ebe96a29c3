//! Reads JSON text token by token, for who knows what to expect: nothing is copied, and what is plain text - nearly all
//! of what there is - is looked at eight bytes at a time. What it takes is JSON; what it refuses, serde_json explains.

use std::borrow::Cow;
use std::str::from_utf8;

use crate::codec::DEPTH_MAX;
use crate::plain::{HIGH, plain_until};
use crate::schema::Head;

/// This is no JSON, or more deeply nested than JSON may be.
#[derive(Debug)]
pub struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// A text and how far it is read.
pub struct Text<'a> {
    text: &'a [u8],
    at: usize,
    /// Objects and lists that are open.
    depth: usize,
    /// All words that strings were in, one over the other: has the high bit of a byte if one of them had it.
    seen: u64,
}

/// A string with its quotes, as the text has it.
#[derive(Clone, Copy)]
pub struct Quoted<'a> {
    text: &'a [u8],
    escapes: bool,
}

impl<'a> Quoted<'a> {
    /// What is between the quotes, if it means itself.
    #[inline]
    pub fn plain(self) -> Option<&'a [u8]> {
        (!self.escapes).then(|| self.within())
    }

    fn within(self) -> &'a [u8] {
        &self.text[1..self.text.len() - 1]
    }

    #[inline]
    pub fn decode(self) -> Result<Cow<'a, [u8]>> {
        if let Some(plain) = self.plain() {
            return Ok(Cow::Borrowed(plain));
        }
        let mut out = Vec::with_capacity(self.text.len());
        self.unescape(&mut out)?;
        Ok(Cow::Owned(out))
    }

    pub fn text(self) -> Result<Cow<'a, str>> {
        match self.decode()? {
            Cow::Borrowed(text) => from_utf8(text).map(Cow::Borrowed).map_err(|_| Malformed),
            Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).map_err(|_| Malformed),
        }
    }

    /// Appends what the string means.
    pub fn unescape(self, out: &mut Vec<u8>) -> Result<()> {
        let mut rest = self.within();
        loop {
            let (plain, escape) = rest.split_at(plain_until(rest, 0, &mut 0));
            out.extend_from_slice(plain);
            let Some(kind) = escape.get(1) else { return Ok(()) };
            rest = &escape[2..];
            match kind {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'b' => out.push(0x08),
                b'f' => out.push(0x0c),
                b'u' => rest = unescape_utf16(escape, out)?,
                byte => out.push(*byte),
            }
        }
    }
}

/// Appends the characters of the `\uXXXX` that `text` begins with, and returns what follows them.
fn unescape_utf16<'a>(mut text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8]> {
    let mut units = Vec::new();
    while let Some((unit, rest)) = text.strip_prefix(b"\\u").and_then(|text| text.split_at_checked(4)) {
        let unit = from_utf8(unit).ok().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        units.push(unit.ok_or(Malformed)?);
        text = rest;
    }
    out.extend_from_slice(String::from_utf16(&units).map_err(|_| Malformed)?.as_bytes());
    Ok(text)
}

impl<'a> Text<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Text { text, at: 0, depth: 0, seen: 0 }
    }

    /// Whether there may be other characters than those of ASCII in what is read; whether they are, is not looked at.
    pub fn is_wide(&self) -> bool {
        self.seen & HIGH != 0
    }

    /// Where the next token is, or the next space.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What the text has had since it was at `start`.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.text[start..self.at]
    }

    /// Objects and lists that are open here.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Goes past `value` if it is next: an object or a list, which ends by itself.
    pub fn pass(&mut self, value: &[u8]) -> bool {
        let is_next = self.text[self.at..].starts_with(value);
        if is_next {
            self.at += value.len();
        }
        is_next
    }

    /// What the next token begins with.
    #[inline]
    pub fn peek(&mut self) -> Result<u8> {
        match self.text.get(self.at) {
            Some(byte) if *byte > b' ' => Ok(*byte),
            _ => self.peek_past_space(),
        }
    }

    #[cold]
    fn peek_past_space(&mut self) -> Result<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Malformed),
            }
        }
    }

    /// Begins the object or list whose bracket is next, and tells whether there is anything in it.
    #[inline]
    pub fn open(&mut self, close: u8) -> Result<bool> {
        self.at += 1;
        self.depth += 1;
        if self.depth >= DEPTH_MAX {
            return Err(Malformed);
        }
        let ended = self.peek()? == close;
        if ended {
            self.close();
        }
        Ok(!ended)
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Whether the object or list goes on after one of its values.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == close => {
                self.close();
                Ok(false)
            }
            _ => Err(Malformed),
        }
    }

    /// A key and the colon after it.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Quoted<'a>> {
        self.peek()?;
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(key)
    }

    /// As `key`, with the head of what it means.
    #[inline(always)]
    pub fn field(&mut self) -> Result<(Quoted<'a>, Head)> {
        self.peek()?;
        let text = self.text.get(self.at + 1..).unwrap_or_default();
        let key = self.key()?;
        let head = match key.plain() {
            Some(name) => Head::at_start(text, name.len()),
            None => Head::of(&key.decode()?),
        };
        Ok((key, head))
    }

    /// A string, whose quote is next.
    #[inline(always)]
    pub fn string(&mut self) -> Result<Quoted<'a>> {
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(Malformed);
        }
        let mut end = plain_until(self.text, start + 1, &mut self.seen);
        let escapes = self.text.get(end) != Some(&b'"');
        if escapes {
            end = self.end_of_escaped(end)?;
        }
        self.at = end + 1;
        Ok(Quoted { text: &self.text[start..self.at], escapes })
    }

    /// Where the string ends whose first escape is here.
    #[cold]
    fn end_of_escaped(&mut self, mut at: usize) -> Result<usize> {
        loop {
            match self.text.get(at) {
                Some(b'"') => return Ok(at),
                Some(b'\\') => at += escape_bytes(&self.text[at..]).ok_or(Malformed)?,
                _ => return Err(Malformed),
            }
            at = plain_until(self.text, at, &mut self.seen);
        }
    }

    /// A number as it is written.
    pub fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        self.skip_number()?;
        from_utf8(self.since(start)).map_err(|_| Malformed)
    }

    fn skip_number(&mut self) -> Result<()> {
        self.at += usize::from(self.is_at(|byte| byte == b'-'));
        let first = self.at;
        let digits = self.digits()?;
        if digits > 1 && self.text[first] == b'0' {
            return Err(Malformed);
        }
        if self.is_at(|byte| byte == b'.') {
            self.at += 1;
            self.digits()?;
        }
        if self.is_at(|byte| matches!(byte, b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(self.is_at(|byte| matches!(byte, b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn is_at(&self, wanted: impl Fn(u8) -> bool) -> bool {
        self.text.get(self.at).is_some_and(|byte| wanted(*byte))
    }

    /// How many digits are next, at least one.
    fn digits(&mut self) -> Result<usize> {
        let start = self.at;
        while self.is_at(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(self.at - start) } else { Err(Malformed) }
    }

    /// `true`, `false` or `null`.
    pub fn literal(&mut self, literal: &str) -> Result<()> {
        if !self.text[self.at..].starts_with(literal.as_bytes()) {
            return Err(Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    /// Goes past a value, whatever it is, that is no deeper than a whole text may be.
    pub fn skip(&mut self) -> Result<()> {
        // A bit for each object or list that is open, the innermost lowest: whether it is an object.
        let mut objects = 0_u128;
        const { assert!(DEPTH_MAX <= u128::BITS as usize) };
        let outer = self.depth;
        loop {
            let first = self.peek()?;
            match first {
                b'{' | b'[' => {
                    let is_object = first == b'{';
                    self.at += 1;
                    self.depth += 1;
                    if self.peek()? == closing(is_object) {
                        self.close();
                    } else if self.depth > outer + DEPTH_MAX {
                        return Err(Malformed);
                    } else {
                        objects = objects << 1 | u128::from(is_object);
                        self.skip_key(is_object)?;
                        continue;
                    }
                }
                _ => self.skip_scalar(first)?,
            }
            // What ends with this value.
            loop {
                if self.depth == outer {
                    return Ok(());
                }
                let is_object = objects & 1 != 0;
                if self.more(closing(is_object))? {
                    self.skip_key(is_object)?;
                    break;
                }
                objects >>= 1;
            }
        }
    }

    #[inline(always)]
    fn skip_key(&mut self, is_object: bool) -> Result<()> {
        if is_object {
            self.key()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn skip_scalar(&mut self, first: u8) -> Result<()> {
        match first {
            b'"' => {
                self.string()?;
                Ok(())
            }
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.skip_number(),
        }
    }
}

/// What ends an object or else a list.
fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// How long the escape is that `bytes` begin with.
fn escape_bytes(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// How many bytes the first value of a text takes.
    fn skipped(text: &[u8]) -> Option<usize> {
        let mut text = Text::new(text);
        text.skip().ok().map(|()| text.at())
    }

    fn skipped_by_serde(text: &[u8]) -> Option<usize> {
        let mut values =
            serde_json::Deserializer::from_slice(text).into_iter::<&serde_json::value::RawValue>();
        values.next()?.ok().map(|_| values.byte_offset())
    }

    fn unescaped(text: &str) -> Option<String> {
        let mut read = Text::new(text.as_bytes());
        read.string().and_then(Quoted::text).ok().map(Cow::into_owned)
    }

    #[test]
    fn what_is_skipped_is_as_deep_as_a_text_may_be() {
        for (open, close) in [("[", "]"), ("{\"a\":[", "]}")] {
            let levels = DEPTH_MAX / open.matches(['[', '{']).count();
            let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            assert_eq!(skipped(nested(levels).as_bytes()), Some(nested(levels).len()), "{open}");
            assert_eq!(skipped(nested(levels + 1).as_bytes()), None, "{open}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn values_end_where_serde_ends_them(text in r#"( |[\[\]{}:,]|"([a-z]|\\[a-z"\\]|\\u[0-9a-f]{4}){0,9}"|"a":|-?[0-9]{1,2}(\.[0-9]?)?(e[+-]?[0-9]?)?|true|false|null){0,8}"#) {
            // A value that stands for itself needs nothing after it; a number or a name needs a boundary.
            if let Some(end) = skipped_by_serde(text.as_bytes()) {
                prop_assert_eq!(skipped(text.as_bytes()), Some(end), "{}", text);
            }
            if skipped(text.as_bytes()) == Some(text.len()) {
                prop_assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn escapes_mean_what_they_mean_to_serde(text in r#""([a-zé]|\\[nrtbf"\\/]|\\u00[0-9a-f]{2}|\\ud8[0-9a-f]{2}(\\udc[0-9A-F]{2})?|\\u20ac){0,9}""#) {
            prop_assert_eq!(unescaped(&text), serde_json::from_str(&text).ok(), "{}", text);
        }
    }
}
