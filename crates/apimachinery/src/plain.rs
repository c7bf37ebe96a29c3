//! Where the text of a JSON string stands for itself, which nearly all of it does: looked at eight bytes at a time.

/// Where, from `at` on, plain text ends: at a quote, a backslash, a control character or the end. What it looks at goes
/// over `seen`.
#[inline]
pub fn plain_until(text: &[u8], mut at: usize, seen: &mut u64) -> usize {
    while let Some(word) = text[at..].first_chunk() {
        let word = u64::from_le_bytes(*word);
        *seen |= word;
        let special = special(word);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &text[at..];
    let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).unwrap_or(rest.len());
    rest.iter().for_each(|byte| *seen |= u64::from(*byte));
    at + plain
}

/// One in each byte of a word, and the high bit of each.
const EACH: u64 = u64::from_le_bytes([1; 8]);
pub(crate) const HIGH: u64 = EACH << 7;

/// Has the high bit of the first byte, from the lowest on, that is not plain text, and of none below it.
#[inline]
fn special(word: u64) -> u64 {
    let less = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word;
    let is = |byte: u8| less(word ^ (EACH * u64::from(byte)), 1);
    (is(b'"') | is(b'\\') | less(word, 0x20)) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_ends_at_the_first_byte_that_is_not() {
        for byte in 0..=u8::MAX {
            let is_plain = !matches!(byte, b'"' | b'\\' | ..0x20);
            for before in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                for length in 0..20 {
                    let mut text = vec![before; length];
                    text.extend([byte, b'"', byte]);
                    let end = length + usize::from(is_plain);
                    let mut seen = 0;
                    assert_eq!(plain_until(&text, 0, &mut seen), end, "{byte} after {length} of {before}");
                    let is_wide = text[..end].iter().any(|byte| !byte.is_ascii());
                    assert!(!is_wide || seen & HIGH != 0, "{byte} after {length} of {before}");
                }
            }
        }
    }
}
