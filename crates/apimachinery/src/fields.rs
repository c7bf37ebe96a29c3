//! Field selectors: `metadata.name=x,status.phase!=Running` (follows `k8s.io/apimachinery/pkg/fields`).

use std::borrow::Cow;
use std::fmt;

/// One term: the field has the value, or has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// All terms must hold; no terms match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

/// Why a text is no field selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {}", *.0 as u32)]
    Unescaped(char),
}

/// Parses `a=b,c==d,e!=f`; `\` escapes `,`, `=` and itself in values.
pub fn parse(text: &str) -> Result<Selector, ParseError> {
    let mut parts = split_terms(text);
    parts.sort_unstable();
    let terms = parts.into_iter().filter(|part| !part.is_empty()).map(|part| {
        let not_a_term = || ParseError::Term { selector: text.to_owned(), term: part.to_owned() };
        let (field, equal, value) = split_term(part).ok_or_else(not_a_term)?;
        Ok(Term { field: field.to_owned(), equal, value: unescape(value)?.into_owned() })
    });
    Ok(Selector { terms: terms.collect::<Result<_, _>>()? })
}

/// Cuts at the commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let cut = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        cut
    })
    .collect()
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let bytes = term.as_bytes();
    let at = (0..bytes.len()).find(|&at| bytes[at] == b'=' || bytes[at..].starts_with(b"!="))?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    Some((field, true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?))
}

fn unescape(text: &str) -> Result<Cow<'_, str>, ParseError> {
    if !text.contains(['\\', ',', '=']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(other) => return Err(ParseError::Escape(format!("\\{other}"))),
                None => return Err(ParseError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(ParseError::Unescaped(c)),
            other => out.push(other),
        }
    }
    Ok(Cow::Owned(out))
}

impl Selector {
    /// Matches what has this value in this field.
    pub fn equal(field: impl Into<String>, value: impl Into<String>) -> Self {
        Selector { terms: vec![Term { field: field.into(), equal: true, value: value.into() }] }
    }

    /// `lookup` gives a field's value; an absent one counts as empty.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (lookup(&term.field).unwrap_or("") == term.value) == term.equal)
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The value that this field must have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// The value as it stands in a selector's text.
pub fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(selector: &str, expect: bool) {
        let fields = [("metadata.name", "a=b"), ("status.phase", "Running")];
        let lookup = |field: &str| fields.iter().find(|(f, _)| *f == field).map(|(_, v)| *v);
        assert_eq!(parse(selector).expect("a selector").matches(lookup), expect, "{selector}");
    }

    #[test]
    fn terms_compare_fields_with_values() {
        for yes in
            ["", "metadata.name=a\\=b", "status.phase==Running", "status.phase!=Failed", "missing=", ",,"]
        {
            check(yes, true);
        }
        for no in [
            "status.phase=Failed",
            "status.phase!=Running",
            "missing!=",
            "metadata.name=x,status.phase=Running",
        ] {
            check(no, false);
        }
    }

    #[test]
    fn refusals_read_as_upstreams() {
        for (text, expect) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(parse(text).expect_err("refused").to_string(), expect);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[ab=!,\\\\]{0,16}|.{0,16}") {
            let _parsed = parse(&text).is_ok();
        }

        #[test]
        fn values_survive_escaping(value in ".{0,16}") {
            let selector = Selector::equal("f", value);
            prop_assert_eq!(&parse(&selector.to_string()).expect("its own text"), &selector);
        }
    }
}
