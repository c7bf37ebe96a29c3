//! The list of differences that are meant to be, each with its reason.
//!
//! A line is a pattern in which `*` stands for anything; the lines that begin with a space below it are the reason. The
//! pattern is held against `script METHOD /path | difference`.

use anyhow::{Result, ensure};

#[derive(Debug, Default)]
pub struct Explained {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    pattern: String,
    used: bool,
}

impl Explained {
    pub fn parse(text: &str) -> Result<Explained> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut reasoned = true;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with(' ') {
                reasoned = true;
                continue;
            }
            ensure!(reasoned, "no reason is given for {:?}", entries.last().map(|entry| &entry.pattern));
            reasoned = false;
            entries.push(Entry { pattern: line.to_owned(), used: false });
        }
        ensure!(reasoned, "no reason is given for {:?}", entries.last().map(|entry| &entry.pattern));
        Ok(Explained { entries })
    }

    pub fn covers(&mut self, difference: &str) -> bool {
        let found = self.entries.iter_mut().find(|entry| matches(&entry.pattern, difference));
        found.is_some_and(|entry| {
            entry.used = true;
            true
        })
    }

    /// Patterns that no difference needed.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| !entry.used).map(|entry| entry.pattern.as_str())
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("a split has a first part");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("") || last.is_some_and(|part| text.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expect) in [
            ("a*c", "abc", true),
            ("a*c", "abcxc", true),
            ("a*", "abc", true),
            ("*b*", "abc", true),
            ("a*d", "abc", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn every_pattern_needs_a_reason_and_is_known_to_be_used() {
        assert!(Explained::parse("a*\nb*\n  reason\n").is_err());
        let mut explained = Explained::parse("# all\na*\n  reason\nb*\n  reason\n").unwrap();
        assert!(explained.covers("abc") && !explained.covers("xyz"));
        assert_eq!(explained.unused().collect::<Vec<_>>(), ["b*"]);
    }
}
