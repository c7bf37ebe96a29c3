//! Where an object or a list ends, found 64 bytes at a time: most of what is passed over in a text is nested, and to look
//! at each of its strings and brackets costs more than the rest of a row.

const BLOCK: usize = 64;

/// How far the object or list goes that a text begins with, if it ends.
pub fn past_nested(text: &[u8]) -> Option<usize> {
    let (mut depth, mut strings) = (0, Strings::default());
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (at, block) in blocks.iter().chain([&last]).enumerate() {
        let marks = Marks::of(block);
        let outside = !strings.next(marks.quotes, marks.backslashes);
        let (opens, closes) = (marks.opens & outside, marks.closes & outside);
        if depth <= closes.count_ones()
            && let Some(end) = end(depth, opens, closes)
        {
            return Some(at * BLOCK + end);
        }
        depth = (depth + opens.count_ones()).checked_sub(closes.count_ones())?;
    }
    None
}

/// Where in a block the depth, which is so much before it, becomes zero.
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
    fn next(&mut self, quotes: u64, backslashes: u64) -> u64 {
        let quotes = quotes & !self.escaped(backslashes);
        let within = odd_below(quotes) ^ if self.inside { u64::MAX } else { 0 };
        self.inside = within >> (u64::BITS - 1) != 0;
        within
    }

    /// The bytes that a backslash stands before which is not itself behind one.
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
fn odd_below(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
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
    fn of(block: &[u8; BLOCK]) -> Marks {
        // SAFETY: every x86_64 has SSE2.
        unsafe { Marks::sixteen_at_once(block) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse2")]
    fn sixteen_at_once(block: &[u8; BLOCK]) -> Marks {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
        };
        let mut marks = Marks::default();
        let words = block.as_chunks().0.as_chunks().0;
        for (at, [low, high]) in words.iter().enumerate() {
            let bytes = _mm_set_epi64x(i64::from_le_bytes(*high), i64::from_le_bytes(*low));
            let curly = _mm_or_si128(bytes, _mm_set1_epi8(CURLY as i8));
            let are = |bytes: __m128i, byte: u8| {
                let found = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)));
                u64::from(found as u32) << (at * size_of::<__m128i>())
            };
            marks.quotes |= are(bytes, b'"');
            marks.backslashes |= are(bytes, b'\\');
            marks.opens |= are(curly, b'{');
            marks.closes |= are(curly, b'}');
        }
        marks
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(block: &[u8; BLOCK]) -> Marks {
        Marks::one_by_one(block)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
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
    fn walked(text: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escapes) = (0_usize, false, false);
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
                assert_eq!(past_nested(format!("{nested}]").as_bytes()), Some(nested.len()), "{nested}");
                assert_eq!(past_nested(&nested.as_bytes()[..nested.len() - 1]), None, "{nested}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_ends_where_it_ends_byte_by_byte(text in r#"[\[{]([\[\]{}",:a]|\\\\|\\"|[a-z]{0,40}|\[\]|\{\}){0,60}"#) {
            prop_assert_eq!(past_nested(text.as_bytes()), walked(text.as_bytes()), "{}", text);
        }

        #[test]
        fn marks_are_those_of_each_byte(block in prop::array::uniform32(any::<[u8; 2]>())) {
            let block = block.concat();
            let block = block.as_array().expect("is twice 32 bytes");
            prop_assert_eq!(Marks::of(block), Marks::one_by_one(block));
        }
    }
}
