//! Names that lead with a DNS domain, and those with wildcards (follows `IsDomainPrefixedPath`,
//! `IsWildcardDNS1123Subdomain`, `IsFullyQualifiedName`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use super::At;

/// The longest DNS subdomain.
const SUBDOMAIN_MAX: usize = 253;
/// What a path may hold besides letters and digits.
const PATH_MARKS: &[u8] = b"/-._~%!$&'()*+,;=:";

/// A domain, a slash and a path: `acme.io/foo`.
pub fn prefixed_path(at: &At, errors: &mut ErrorList) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    let Some((host, path)) =
        at.text().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        errors.push(at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    for complaint in names::is_dns1123_subdomain(host) {
        errors.push(Error::invalid(&at.path, host, complaint));
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || PATH_MARKS.contains(&b)) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(Error::invalid(&at.path, path, detail));
    }
}

/// `*.` and a DNS subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        complaints.push(format!("must be no more than {SUBDOMAIN_MAX} characters"));
    }
    let is_subdomain =
        |rest: &str| names::is_dns1123_subdomain(rest).iter().all(|c| c.starts_with("must be no more"));
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        complaints.push("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned());
    }
    complaints
}

/// A subdomain of at least three parts, as webhooks are named.
pub fn fully_qualified_name(at: &At, errors: &mut ErrorList) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    let before = errors.len();
    at.check(names::is_dns1123_subdomain, errors);
    if errors.len() == before && at.text().split('.').count() < 3 {
        errors.push(at.invalid("should be a domain with at least three segments separated by dots"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::Value;
    use apimachinery::field::Path;

    #[test]
    fn names_lead_with_a_domain() {
        let check = |rule: fn(&At, &mut ErrorList), text: &str, expect: &[&str]| {
            let value = Value::from(text);
            let mut errors = ErrorList::new();
            rule(&At::new(&value, Path::new("f")), &mut errors);
            expect_errors(&errors, expect);
        };
        check(prefixed_path, "acme.io/foo/bar", &[]);
        check(prefixed_path, "", &["f: Required value"]);
        check(prefixed_path, "acme.io", &["f: Invalid value: \"acme.io\": must be a domain-prefixed path"]);
        check(prefixed_path, "acme.io/a b", &["f: Invalid value: \"a b\": Invalid path"]);
        check(fully_qualified_name, "a.b.c", &[]);
        check(
            fully_qualified_name,
            "a.b",
            &["f: Invalid value: \"a.b\": should be a domain with at least three"],
        );
    }

    #[test]
    fn a_wildcard_stands_first_and_alone() {
        assert!(wildcard_subdomain("*.a.b").is_empty());
        for bad in ["*", "a.*.b", "*.*.a", "*.A"] {
            assert_eq!(wildcard_subdomain(bad).len(), 1, "{bad}");
        }
    }
}
