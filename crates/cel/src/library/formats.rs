//! Named formats of texts. Follows upstream's `library.Format`.

use std::borrow::Cow;

use apimachinery::names;

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::library::url;
use crate::signature::Row;
use crate::strfmt;
use crate::value::Val;

/// A format, what it finds wrong with a text, and how long the pattern is that costs count it as.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    complaints: fn(&str) -> Vec<String>,
    pub(crate) pattern: u64,
}

const fn format(name: &'static str, complaints: fn(&str) -> Vec<String>, pattern: u64) -> Format {
    Format { name, complaints, pattern }
}

/// The length of `strfmt.UUIDPattern`.
const UUID_PATTERN: u64 = 70;
/// The length of `strfmt.DateTimePattern`.
const DATE_TIME_PATTERN: u64 = 71;

static FORMATS: [Format; 13] = [
    format("dns1123Label", names::is_dns1123_label, 30),
    format("dns1123Subdomain", names::is_dns1123_subdomain, 60),
    format("dns1035Label", names::is_dns1035_label, 30),
    format("qualifiedName", names::is_qualified_name, 60),
    format("dns1123LabelPrefix", |text| names::is_dns1123_label(&completed(text)), 30),
    format("dns1123SubdomainPrefix", |text| names::is_dns1123_subdomain(&completed(text)), 60),
    format("dns1035LabelPrefix", |text| names::is_dns1035_label(&completed(text)), 30),
    format("labelValue", names::is_label_value, 40),
    format("uri", |text| url::complaint(text).into_iter().collect(), 1103),
    format(
        "uuid",
        |text| unless(strfmt::holds("uuid", text), "does not match the UUID format"),
        UUID_PATTERN,
    ),
    format("byte", |text| unless(strfmt::holds("byte", text), "invalid base64"), 84),
    format("date", |text| unless(strfmt::holds("date", text), "invalid date"), DATE_TIME_PATTERN),
    format("datetime", |text| unless(strfmt::holds("datetime", text), "invalid datetime"), DATE_TIME_PATTERN),
];

fn unless(holds: bool, complaint: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![complaint.to_owned()] }
}

/// A prefix may end with a dash, as something follows it (upstream: `maskTrailingDash`).
fn completed(prefix: &str) -> Cow<'_, str> {
    let mut kept = prefix.chars();
    match (kept.next_back(), kept.next_back()) {
        (Some('-'), Some(_)) => format!("{}a", kept.as_str()).into(),
        _ => prefix.into(),
    }
}

macro_rules! rows {
    ($($name:literal => $place:literal),*) => {
        &[
            ("format.named(string) optional(kubernetes.NamedFormat)", named),
            ("kubernetes.NamedFormat: validate(string) optional(list(string))", validate),
            $((concat!("format.", $name, "() kubernetes.NamedFormat"), |_| Ok(Val::Format(&FORMATS[$place]))),)*
        ]
    };
}

pub(super) const ROWS: &[Row] = rows!(
    "dns1123Label" => 0, "dns1123Subdomain" => 1, "dns1035Label" => 2, "qualifiedName" => 3,
    "dns1123LabelPrefix" => 4, "dns1123SubdomainPrefix" => 5, "dns1035LabelPrefix" => 6, "labelValue" => 7,
    "uri" => 8, "uuid" => 9, "byte" => 10, "date" => 11, "datetime" => 12
);

fn named<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let name = text(args, 0)?;
    let found = FORMATS.iter().find(|format| format.name == name);
    Ok(found.map_or(Val::Optional(None), |format| Val::some(Val::Format(format))))
}

fn validate<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let Val::Format(format) = &args[0] else { return Err(EvalError::NoSuchOverload) };
    let complaints = (format.complaints)(text(args, 1)?);
    if complaints.is_empty() {
        return Ok(Val::Optional(None));
    }
    Ok(Val::some(Val::list(complaints.into_iter().map(Val::text).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_table() {
        for (format, (signature, _)) in FORMATS.iter().zip(&ROWS[2..]) {
            assert_eq!(*signature, format!("format.{}() kubernetes.NamedFormat", format.name));
        }
    }

    #[test]
    fn prefixes_may_end_with_what_names_may_not() {
        let complaints = |name: &str, text: &str| {
            let format = FORMATS.iter().find(|format| format.name == name).expect("is one");
            (format.complaints)(text).len()
        };
        for (name, text, expect) in [
            ("dns1123Label", "a-", 1),
            ("dns1123LabelPrefix", "a-", 0),
            ("dns1123SubdomainPrefix", "a.b-", 0),
            ("dns1123LabelPrefix", "-", 1),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", 0),
            ("uri", "http://x", 0),
            ("uri", "x", 1),
            ("date", "2024-02-30", 1),
            ("datetime", "2024-02-20T01:02:03Z", 0),
        ] {
            assert_eq!(complaints(name, text), expect, "{name} {text}");
        }
    }
}
