//! Where a webhook is called: a URL or a Service (follows `ValidateWebhookURL`, `ValidateWebhookService`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::validation::At;

const FORM: &str = "; desired format: https://host[/path]";
const PORT_MAX: i64 = 65535;

/// The `clientConfig` of a webhook: exactly one of `url` and `service`.
pub fn validate(config: &At, errors: &mut ErrorList) {
    match (config.field("url"), config.field("service")) {
        (Some(at), None) => url(&at, errors),
        (None, Some(at)) => service(&at, errors),
        _ => errors.push(config.required("exactly one of url or service is required")),
    }
}

/// `https://host[/path]` and nothing else.
pub fn url(at: &At, errors: &mut ErrorList) {
    let text = at.text();
    let mut complain = |part: &str, detail: String| errors.push(Error::invalid(&at.path, part, detail));
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = match text.split_once("//") {
        Some((before, rest)) => (before.strip_suffix(':').unwrap_or_default(), rest),
        None => (text.split_once(':').map_or("", |(scheme, _)| scheme), ""),
    };
    if !scheme.eq_ignore_ascii_case("https") {
        complain(&scheme.to_lowercase(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() {
        complain(host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        complain(user, "user information is not permitted in the URL".to_owned());
    }
    if !fragment.is_empty() {
        complain(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !query.is_empty() {
        complain(query, "query parameters are not permitted in the URL".to_owned());
    }
}

/// A reference to a Service, its port and the path there.
pub fn service(at: &At, errors: &mut ErrorList) {
    for field in ["name", "namespace"] {
        if at.get(field).is_empty() {
            errors.push(at.get(field).required(""));
        }
    }
    let port = at.get("port");
    if !(1..=PORT_MAX).contains(&port.int()) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&port.path, port.int(), detail));
    }
    if let Some(path) = at.field("path") {
        service_path(&path, errors);
    }
}

fn service_path(path: &At, errors: &mut ErrorList) {
    let text = path.text();
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        errors.push(path.invalid("segment[0] may not be empty"));
        return;
    }
    if !text.starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(format!("segment[{index}] may not be empty")));
            continue;
        }
        for complaint in names::is_dns1123_subdomain(step) {
            errors.push(path.invalid(format!("segment[{index}]: {complaint}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::field::Path;
    use apimachinery::{Value, json};

    #[test]
    fn a_webhook_is_called_at_one_place() {
        let check = |config: Value, expect: &[&str]| {
            let mut errors = ErrorList::new();
            validate(&At::new(&config, Path::new("c")), &mut errors);
            expect_errors(&errors, expect);
        };
        check(json!({"url": "https://e.com:8443/path"}), &[]);
        check(json!({}), &["c: Required value: exactly one of url or service is required"]);
        check(
            json!({"url": "http://e.com"}),
            &["c.url: Invalid value: \"http\": 'https' is the only allowed URL"],
        );
        check(json!({"url": "https:///x"}), &["c.url: Invalid value: \"\": host must be specified"]);
        check(
            json!({"url": "https://u@e.com/?q=1#f"}),
            &[
                "c.url: Invalid value: \"u\": user information is not permitted in the URL",
                "c.url: Invalid value: \"f\": fragments are not permitted in the URL",
                "c.url: Invalid value: \"q=1\": query parameters are not permitted in the URL",
            ],
        );
        let service =
            |path: &str| json!({"service": {"name": "s", "namespace": "n", "port": 443, "path": path}});
        check(service("/a/b/"), &[]);
        check(service("ab"), &["c.service.path: Invalid value: \"ab\": must start with a '/'"]);
        check(service("/a//b"), &["c.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"]);
        check(
            json!({"service": {"name": "s", "port": 0}}),
            &["c.service.namespace: Required value", "c.service.port: Invalid value: 0: port is not valid"],
        );
    }
}
