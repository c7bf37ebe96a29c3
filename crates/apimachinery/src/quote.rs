//! Strings in quotation marks as Go's `%q` writes them (`strconv.Quote`).

use std::fmt::{self, Write as _};

/// A string that is displayed quoted.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.0.chars().try_for_each(|c| push(f, c))?;
        f.write_char('"')
    }
}

fn push(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        '\0'..' ' | '\x7f' => write!(f, "\\x{:02x}", u32::from(c)),
        c if printable(c) => f.write_char(c),
        c if u32::from(c) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(c)),
        c => write!(f, "\\U{:08x}", u32::from(c)),
    }
}

/// Both languages take for printable what Unicode calls letters, marks, numbers, punctuation and symbols. Rust says so of a
/// mark only where another character stands before it.
fn printable(c: char) -> bool {
    let mut after_another = [0; 8];
    after_another[0] = b'a';
    let length = 1 + c.encode_utf8(&mut after_another[1..]).len();
    let text = std::str::from_utf8(&after_another[..length]).expect("two characters were encoded");
    c.is_ascii() || !text.escape_debug().skip(1).eq(c.escape_unicode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_as_go_escapes_it() {
        for (text, expect) in [
            ("", r#""""#),
            ("it's \"so\" \\", r#""it's \"so\" \\""#),
            ("\0\x1b\x7f", r#""\x00\x1b\x7f""#),
            ("\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("\u{e9}\u{301}", "\"\u{e9}\u{301}\""),
            ("\u{301}", "\"\u{301}\""),
            ("\u{a0}\u{feff}\u{e000}", r#""\u00a0\ufeff\ue000""#),
            ("\u{1f600}\u{f0000}", "\"\u{1f600}\\U000f0000\""),
        ] {
            assert_eq!(Quoted(text).to_string(), expect);
        }
    }
}
