//! The query string as pairs of text, and the option types clients put there.

use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

use apimachinery::codec::Strictness;
use apimachinery::field::{self, ErrorList, Path};
use apimachinery::fields;
use apimachinery::percent;
use apimachinery::{GroupKind, Status, json};

/// The longest fieldManager (upstream: FieldManagerMaxLength).
pub const FIELD_MANAGER_MAX: usize = 128;

/// A decoded query string; of a repeated key the first value counts, as in Go's `Values.Get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty() && is_readable(pair)).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent::decode(key, true), percent::decode(value, true))
        });
        Query(pairs.collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value, or the empty string.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Go's reading of a boolean parameter: anything but absence, `0` and `false` is true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v, "false" | "0" | "False" | "FALSE"))
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|error: ParseIntError| {
                let why = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
            }),
        }
    }
}

/// Whether Go's `ParseQuery` takes a pair: it leaves out those with a semicolon or a stray `%`.
fn is_readable(pair: &str) -> bool {
    let is_escape = |at: usize| pair.as_bytes().get(at + 1..at + 3).is_some_and(is_hex);
    !pair.contains(';') && pair.match_indices('%').all(|(at, _)| is_escape(at))
}

fn is_hex(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_hexdigit)
}

/// How the resourceVersion of a list or watch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Options of `list`, `watch` and `deletecollection` (metav1.ListOptions).
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub continue_token: String,
    /// Empty, `0` or a revision.
    pub resource_version: String,
    /// `resourceVersionMatch` as the client wrote it, and what it means if it means anything.
    asked_match: Option<String>,
    pub version_match: Option<VersionMatch>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout: Option<Duration>,
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let asked_match = Some(query.text("resourceVersionMatch")).filter(|text| !text.is_empty());
        let version_match = match asked_match {
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            _ => None,
        };
        let options = ListOptions {
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            limit: usize::try_from(query.number("limit")?.unwrap_or_default()).unwrap_or_default(),
            continue_token: query.text("continue").to_owned(),
            resource_version: query.text("resourceVersion").to_owned(),
            asked_match: asked_match.map(str::to_owned),
            version_match,
            allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout: query.number("timeoutSeconds")?.and_then(positive_seconds),
        };
        let errors = if watch { options.check_watch() } else { options.check_list() };
        if errors.is_empty() {
            return Ok(options);
        }
        Err(Status::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", &errors))
    }

    /// Selects the one object that the path names, if it names one.
    pub fn narrow_to(&mut self, name: &str) -> Result<(), Status> {
        if name.is_empty() {
            return Ok(());
        }
        if self.field_selector.is_empty() {
            self.field_selector = format!("metadata.name={}", fields::escape(name));
            return Ok(());
        }
        let selector =
            fields::parse(&self.field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
        if selector.exact("metadata.name") == Some(name) {
            return Ok(());
        }
        Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"))
    }

    /// Follows `ValidateListOptions`.
    fn check_list(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::new();
        if let Some(version_match) = &self.asked_match {
            if self.resource_version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(field::Error::forbidden(&path, why));
            }
            errors.extend(self.match_with_continue(&path));
            if self.version_match.is_none() {
                let supported = ["Exact", "NotOlderThan", ""];
                errors.push(field::Error::not_supported_of(&path, version_match.as_str(), &supported));
            }
            if self.version_match == Some(VersionMatch::Exact) && self.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(field::Error::forbidden(&path, why));
            }
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(field::Error::forbidden(&Path::new("sendInitialEvents"), why));
        }
        errors
    }

    /// Follows `validateWatchOptions`.
    fn check_watch(&self) -> ErrorList {
        let path = Path::new("resourceVersionMatch");
        let not_older = self.version_match == Some(VersionMatch::NotOlderThan);
        let mut errors = ErrorList::new();
        if self.send_initial_events.is_some() && !not_older {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(field::Error::forbidden(&path, why));
        }
        if let Some(version_match) = &self.asked_match {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(field::Error::forbidden(&path, why));
            }
            if !not_older {
                errors.push(field::Error::not_supported(&path, version_match.as_str(), &["NotOlderThan"]));
            }
            errors.extend(self.match_with_continue(&path));
        } else if self.send_initial_events.is_none() && matches!(self.resource_version.as_str(), "" | "0") {
            // Such a watch begins with what is there, as if it had asked for that and for what matches it.
            errors.extend(self.match_with_continue(&path));
        }
        errors
    }

    fn match_with_continue(&self, path: &Path) -> Option<field::Error> {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        (!self.continue_token.is_empty()).then(|| field::Error::forbidden(path, why))
    }
}

fn positive_seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs)
}

/// Options of `create`, `update` and `patch`.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// What becomes of a body's unknown and duplicate fields.
    pub field_validation: Strictness,
    /// Only for apply: take over fields other managers own.
    pub force: Option<bool>,
}

impl WriteOptions {
    /// `kind` names the options type in errors: `CreateOptions`.
    pub fn parse(query: &Query, kind: &str) -> Result<WriteOptions, Status> {
        let invalid =
            |error: field::Error| Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", &[error]);
        let dry_run = dry_run(query.all("dryRun")).map_err(&invalid)?;
        let field_manager = query.text("fieldManager").to_owned();
        check_manager(&field_manager).map_err(&invalid)?;
        let text = query.text("fieldValidation");
        let field_validation = Strictness::parse(text).ok_or_else(|| {
            let allowed = ["", "Ignore", "Strict", "Warn"];
            invalid(field::Error::not_supported(&Path::new("fieldValidation"), text, &allowed))
        })?;
        let force = query.get("force").map(|_| query.flag("force"));
        Ok(WriteOptions { dry_run, field_manager, field_validation, force })
    }
}

/// Whether the values of `dryRun` ask for one; anything but `All` is refused.
pub fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, field::Error> {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        return Err(field::Error::not_supported(&Path::new("dryRun"), json!(values), &["All"]));
    }
    Ok(!values.is_empty())
}

fn check_manager(manager: &str) -> Result<(), field::Error> {
    let path = Path::new("fieldManager");
    if manager.len() > FIELD_MANAGER_MAX {
        return Err(field::Error::too_long(&path, FIELD_MANAGER_MAX));
    }
    match manager.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, c)) => {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            Err(field::Error::invalid(&path, manager, why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_as_go_does() {
        let query = Query::parse("a=b%20c+d&watch&x=%zz&a=second");
        assert_eq!(query.get("a"), Some("b c d"));
        assert!(query.flag("watch"));
        assert_eq!(query.get("x"), None, "what cannot be read is left out");
        assert!(!Query::parse("watch=false").flag("watch"));
    }

    #[test]
    fn contradictory_list_options_are_refused() {
        let table = [
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            ("resourceVersionMatch=Exact&resourceVersion=0", "is forbidden for resourceVersion \"0\""),
            ("resourceVersionMatch=Bogus", "Unsupported value: \"Bogus\""),
            ("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ];
        for (query, expect) in table {
            let status = ListOptions::parse(&Query::parse(query), false).expect_err("is refused");
            assert!(status.message.contains(expect), "{}", status.message);
        }
        let twice =
            ListOptions::parse(&Query::parse("resourceVersionMatch=Exact"), true).expect_err("is refused");
        assert_eq!(twice.causes().len(), 2);
        let watch =
            ListOptions::parse(&Query::parse("sendInitialEvents=true"), true).expect_err("is refused");
        assert!(watch.message.contains("requires setting resourceVersionMatch to NotOlderThan"));
    }

    #[test]
    fn a_field_manager_of_unprintable_characters_is_told_where() {
        let status = WriteOptions::parse(&Query::parse("fieldManager=ab%07"), "CreateOptions");
        let message = status.expect_err("is refused").message;
        assert!(message.contains("invalid character U+0007 (at position 2)"), "{message}");
    }

    #[test]
    fn only_a_full_dry_run_exists() {
        let status =
            WriteOptions::parse(&Query::parse("dryRun=Some"), "CreateOptions").expect_err("is refused");
        assert_eq!(status.code, 422);
        assert!(
            WriteOptions::parse(&Query::parse("dryRun=All"), "CreateOptions").expect("is accepted").dry_run
        );
    }
}
