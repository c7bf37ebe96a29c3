//! DNS policy and configuration of a pod (follows `validatePodDNSConfig`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::validation::{At, ip};

pub const POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// What the C library's resolver takes.
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_LIST_CHARS_MAX: usize = 2048;

const UNDERSCORE_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";

pub fn config(spec: &At, errors: &mut ErrorList) {
    let config = spec.get("dnsConfig");
    let nameservers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if nameservers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(nameservers.required(detail));
            return;
        }
    }
    if nameservers.len() > NAMESERVERS_MAX {
        errors.push(nameservers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")));
    }
    for nameserver in nameservers.items() {
        ip::legacy(&nameserver, &[], errors);
    }
    searches(&config.get("searches"), errors);
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn searches(searches: &At, errors: &mut ErrorList) {
    if searches.len() > SEARCH_PATHS_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCH_PATHS_MAX} search paths")));
    }
    if searches.texts().join(" ").len() > SEARCH_LIST_CHARS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_LIST_CHARS_MAX} characters (including spaces) in the search list"
        );
        errors.push(searches.invalid(detail));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        // Underscores are fine here; everything else follows RFC 1123.
        for complaint in names::is_dns1123_subdomain(&text.replace('_', "a")) {
            let complaint =
                if complaint.starts_with("must be") { complaint } else { UNDERSCORE_MESSAGE.to_owned() };
            errors.push(Error::invalid(&search.path, text, complaint));
        }
    }
}
