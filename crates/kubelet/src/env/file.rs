//! Variables in a file of one of the pod's volumes, in a small part of the shell's syntax: `NAME='value'` lines, of which
//! a value may take several (follows `util/env`'s `ParseEnv`).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::OFlag;

/// More of a file is not read: a container's environment is limited by the kernel anyway.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file below a volume's folder; no link leads out of it.
pub fn read(volume: &Path, path: &str) -> io::Result<String> {
    let root = File::open(volume)?;
    let file = runtime::shim::sys::open_in_root(&root, path.as_ref(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let mut text = String::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The value of a variable, empty when the file has none of this name.
pub fn value(text: &str, key: &str) -> Result<String, String> {
    let invalid =
        |line: usize, why: &str| Err(format!("invalid environment variable format at line {line}: {why}"));
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { return invalid(number, "missing '='") };
        if name.trim_end_matches(BLANKS).is_empty() {
            return invalid(number, "empty variable name");
        }
        if name.ends_with(BLANKS) {
            return invalid(number, "whitespace before '=' is not allowed");
        }
        // As in a shell, what follows a blank is no part of the value.
        if rest.starts_with(BLANKS) {
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let Some(quoted) = rest.strip_prefix('\'') else {
            return invalid(number, "value must be enclosed in single quotes");
        };
        let Some((last, value)) = quoted_value(number, quoted, &mut lines) else {
            return Err(format!(
                "invalid environment variable format starting at line {number}: unclosed single quote"
            ));
        };
        let (value, after) = value;
        let after = after.trim_start_matches(BLANKS);
        if !after.is_empty() && !after.starts_with('#') {
            return invalid(last, "unexpected content after closing quote");
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

const BLANKS: [char; 2] = [' ', '\t'];

/// The line of the closing quote, what stands before it, and what after; none when there is no such quote.
fn quoted_value<'t>(
    mut number: usize,
    mut rest: &'t str,
    lines: &mut impl Iterator<Item = (usize, &'t str)>,
) -> Option<(usize, (String, &'t str))> {
    let mut value = String::new();
    loop {
        if let Some((end, after)) = rest.split_once('\'') {
            value.push_str(end);
            return Some((number, (value, after)));
        }
        value.push_str(rest);
        value.push('\n');
        (number, rest) = lines.next()?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: Result<&str, &str>) {
        let found = value(text, "K");
        assert_eq!(found.as_deref().map_err(String::as_str), expect, "{text:?}");
    }

    #[test]
    fn values_stand_in_single_quotes_over_as_many_lines_as_they_like() {
        check("# c\n\n  J='x'\nK='v' # c\n", Ok("v"));
        check("K='a\nb'\n", Ok("a\nb"));
        check("K='$A \"\\n'", Ok("$A \"\\n"));
        check("K= 'v'\n", Ok(""));
        check("J='v'", Ok(""));
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_its_line() {
        let at = "invalid environment variable format at line";
        check("J='x'\nK", Err(&format!("{at} 2: missing '='")));
        check("K ='v'", Err(&format!("{at} 1: whitespace before '=' is not allowed")));
        check("='v'", Err(&format!("{at} 1: empty variable name")));
        check("K=v", Err(&format!("{at} 1: value must be enclosed in single quotes")));
        check("J='a\nb'c", Err(&format!("{at} 2: unexpected content after closing quote")));
        let unclosed = "invalid environment variable format starting at line 1: unclosed single quote";
        check("K='v\n", Err(unclosed));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            drop(value(&text, "K"));
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[^'\r]{1,40}") {
            prop_assert_eq!(super::value(&format!("J='x'\nK='{value}'\n"), "K"), Ok(value));
        }
    }
}
