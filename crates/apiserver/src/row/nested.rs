//! Where an object or a list ends, found 64 bytes at a time: most of what is passed over in a text is nested, and to look
//! at each of its strings and brackets costs more than the rest of a row.

const BLOCK: usize = 64;

/// How far it is, from between two tokens, to the end of as many objects and lists as are open, or of the one that begins
/// there if none is.
pub fn past_nested(text: &[u8], open: u32) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("pclmulqdq")
    {
        // SAFETY: the processor has been asked for what it needs.
        return unsafe { past_in_vectors(text, open) };
    }
    past(text, open, Marks::one_by_one, odd_below)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,popcnt,pclmulqdq")]
fn past_in_vectors(text: &[u8], open: u32) -> Option<usize> {
    past(text, open, |block| Marks::in_vectors(block), |bits| odd_below_in_one(bits))
}

#[inline(always)]
fn past(
    text: &[u8],
    mut depth: u32,
    marks: impl Fn(&[u8; BLOCK]) -> Marks,
    odd_below: impl Fn(u64) -> u64,
) -> Option<usize> {
    let mut strings = Strings::default();
    let mut at = 0;
    while at < text.len() {
        let marks = match text[at..].first_chunk() {
            Some(block) => marks(block),
            None => marks(&padded(&text[at..])),
        };
        let outside = !strings.next(marks.quotes, marks.backslashes, &odd_below);
        let (opens, closes) = (marks.opens & outside, marks.closes & outside);
        let closed = closes.count_ones();
        if depth <= closed
            && let Some(end) = end(depth, opens, closes)
        {
            return Some(at + end);
        }
        depth = (depth + opens.count_ones()).checked_sub(closed)?;
        at += BLOCK;
    }
    None
}

/// The last block of a text.
fn padded(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [b' '; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// Where in a block the depth, which is so much before it, becomes zero.
#[inline(always)]
fn end(depth: u32, opens: u64, closes: u64) -> Option<usize> {
    let (mut left, mut closed) = (closes, 0);
    while left != 0 {
        let at = left.trailing_zeros();
        closed += 1;
        if depth + (opens & ((1 << at) - 1)).count_ones() == closed {
            return Some(at as usize + 1);
        }
        left &= left - 1;
    }
    None
}

/// What is to be known of the blocks before: whether they end in a string, and in a backslash that means the next byte.
#[derive(Default)]
struct Strings {
    inside: bool,
    escapes: bool,
}

impl Strings {
    /// The bytes of the next block that are in strings, opening quotes included.
    #[inline(always)]
    fn next(&mut self, quotes: u64, backslashes: u64, odd_below: impl Fn(u64) -> u64) -> u64 {
        let quotes = quotes & !self.escaped(backslashes);
        let within = odd_below(quotes) ^ if self.inside { u64::MAX } else { 0 };
        self.inside = within >> (u64::BITS - 1) != 0;
        within
    }

    /// The bytes that a backslash stands before which is not itself behind one.
    #[inline(always)]
    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = u64::from(std::mem::take(&mut self.escapes));
        while backslashes != 0 {
            let backslash = backslashes & backslashes.wrapping_neg();
            backslashes ^= backslash;
            if escaped & backslash == 0 {
                escaped |= backslash << 1;
                self.escapes = backslash << 1 == 0;
            }
        }
        escaped
    }
}

/// The bits that have an odd number of set bits at or below them.
#[inline(always)]
fn odd_below(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// The same as one product without carries, by a number of ones alone.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq")]
fn odd_below_in_one(bits: u64) -> u64 {
    use std::arch::x86_64::{_mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_set1_epi8};
    let product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(bits.cast_signed()), _mm_set1_epi8(-1), 0);
    _mm_cvtsi128_si64(product).cast_unsigned()
}

/// Which bytes of a block are what, the first byte lowest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marks {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
}

/// Square brackets differ from curly ones in this bit alone.
const CURLY: u8 = b'{' ^ b'[';

impl Marks {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn in_vectors(block: &[u8; BLOCK]) -> Marks {
        use std::arch::x86_64::{
            __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256,
            _mm256_set1_epi8,
        };
        const HALF: usize = size_of::<__m256i>();
        let mut marks = Marks::default();
        for (at, half) in block.as_chunks::<HALF>().0.iter().enumerate() {
            // SAFETY: reads as many bytes as there are, wherever they are.
            let bytes = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
            let curly = _mm256_or_si256(bytes, _mm256_set1_epi8(CURLY as i8));
            let are = |bytes: __m256i, byte: u8| {
                let found = _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8)));
                u64::from(found as u32) << (at * HALF)
            };
            marks.quotes |= are(bytes, b'"');
            marks.backslashes |= are(bytes, b'\\');
            marks.opens |= are(curly, b'{');
            marks.closes |= are(curly, b'}');
        }
        marks
    }

    fn one_by_one(block: &[u8; BLOCK]) -> Marks {
        let mut marks = Marks::default();
        for (at, byte) in block.iter().enumerate() {
            let mark = |is: bool| u64::from(is) << at;
            marks.quotes |= mark(*byte == b'"');
            marks.backslashes |= mark(*byte == b'\\');
            marks.opens |= mark(byte | CURLY == b'{');
            marks.closes |= mark(byte | CURLY == b'}');
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;
    use proptest::prelude::*;

    use super::*;

    /// As `past_nested`, a byte at a time.
    fn walked(text: &[u8], mut depth: u32) -> Option<usize> {
        let (mut in_string, mut escapes) = (false, false);
        for (at, byte) in text.iter().enumerate() {
            match byte {
                _ if escapes => escapes = false,
                b'\\' => escapes = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    #[test]
    fn what_ends_a_block_counts_in_the_next() {
        for before in 0..2 * BLOCK {
            for text in [r#"""#, r#"\"]"#, r#"\\"#, r#"\\\"}"#] {
                let text = Value::from(format!("{}{text}", "x".repeat(before))).to_string();
                let nested = format!("[[{text}]]");
                assert_eq!(past_nested(format!("{nested}]").as_bytes(), 0), Some(nested.len()), "{nested}");
                assert_eq!(past_nested(&nested.as_bytes()[..nested.len() - 1], 0), None, "{nested}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_ends_where_it_ends_byte_by_byte(
            open in 0_u32..3,
            text in r#"[\[{]([\[\]{}",:a]|\\\\|\\"|[a-z]{0,40}|\[\]|\{\}){0,60}"#,
        ) {
            let end = walked(text.as_bytes(), open);
            prop_assert_eq!(past_nested(text.as_bytes(), open), end, "{}", text);
            prop_assert_eq!(past(text.as_bytes(), open, Marks::one_by_one, odd_below), end, "{}", text);
        }
    }
}
