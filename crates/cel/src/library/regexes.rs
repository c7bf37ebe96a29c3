//! Regular expressions with RE2's meaning. Follows cel-go's `matches` and upstream's `library.Regex`.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use crate::eval::{EvalError, Outcome};
use crate::library::strings::{text, whole};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("string: matches(string) bool", matches),
    ("matches(string, string) bool", matches),
    ("string: find(string) string", find),
    ("string: findAll(string) list(string)", find_all),
    ("string: findAll(string, int) list(string)", find_all),
];

/// A pattern that compiles to more is refused.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// So many patterns are kept compiled per thread; then all are forgotten.
const KEPT_MAX: usize = 256;

thread_local! {
    static KEPT: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

fn compiled(pattern: &str) -> Result<Regex, EvalError> {
    KEPT.with_borrow_mut(|kept| {
        if let Some(found) = kept.get(pattern) {
            return Ok(found.clone());
        }
        let built = RegexBuilder::new(&ascii_classes(pattern)).size_limit(COMPILED_BYTES_MAX).build();
        let built = built.map_err(|_| format!("error parsing regexp: `{pattern}`"))?;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), built.clone());
        Ok(built)
    })
}

/// RE2's classes of digits, words and blanks hold ASCII only, and `\Q...\E` is literal.
fn ascii_classes(pattern: &str) -> String {
    let mut made = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(place) = rest.find('\\') {
        made.push_str(&rest[..place]);
        let after = &rest[place + 1..];
        let Some(letter) = after.chars().next() else { break };
        rest = &after[letter.len_utf8()..];
        match letter {
            'd' | 's' | 'w' | 'b' | 'B' => made.push_str(&format!("(?-u:\\{letter})")),
            'Q' => {
                let (literal, left) = rest.split_once("\\E").unwrap_or((rest, ""));
                made.push_str(&regex::escape(literal));
                rest = left;
            }
            'z' => made.push_str("\\z"),
            letter => {
                made.push('\\');
                made.push(letter);
            }
        }
    }
    made.push_str(rest);
    made
}

fn matches<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    Ok(Val::Bool(compiled(text(args, 1)?)?.is_match(text(args, 0)?)))
}

fn find<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let pattern = compiled(text(args, 1)?)?;
    Ok(Val::text(pattern.find(text(args, 0)?).map_or("", |found| found.as_str())))
}

fn find_all<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let pattern = compiled(text(args, 1)?)?;
    let count = whole(args, 2)?.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let found = pattern.find_iter(text(args, 0)?).take(count);
    Ok(Val::list(found.map(|found| Val::text(found.as_str())).collect()))
}
