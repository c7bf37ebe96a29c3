//! `/healthz`, `/livez` and `/readyz`, as a whole or check by check. Follows `healthz.InstallPathHandler`.

use std::fmt::Write as _;

use apimachinery::Status;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::nonresource::page_not_found;

struct Check {
    name: &'static str,
    /// Whether the server may be alive while this fails.
    readiness_only: bool,
    passes: fn(&Core) -> bool,
}

const CHECKS: [Check; 5] = [
    Check { name: "ping", readiness_only: false, passes: |_| true },
    Check { name: "etcd", readiness_only: false, passes: |core| core.store.is_followed() },
    Check { name: "etcd-readiness", readiness_only: true, passes: |core| core.store.is_followed() },
    Check { name: "poststarthook/rbac/bootstrap-roles", readiness_only: true, passes: Core::is_bootstrapped },
    Check { name: "shutdown", readiness_only: true, passes: |core| !core.draining.is_cancelled() },
];

pub fn paths() -> Vec<String> {
    let endpoints = ["healthz", "livez", "readyz"];
    let all = endpoints.iter().flat_map(|endpoint| {
        let checks = applying(endpoint).map(move |check| format!("/{endpoint}/{}", check.name));
        std::iter::once(format!("/{endpoint}")).chain(checks)
    });
    all.collect()
}

fn applying(endpoint: &str) -> impl Iterator<Item = &'static Check> {
    let ready = endpoint == "readyz";
    CHECKS.iter().filter(move |check| ready || !check.readiness_only)
}

pub fn serve(call: &Call, endpoint: &str, rest: &[&str]) -> Result<Response<Body>, Status> {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let single = rest.join("/");
    let checks: Vec<&Check> = applying(endpoint)
        .filter(
            |check| if single.is_empty() { !excluded.contains(&check.name) } else { check.name == single },
        )
        .collect();
    if checks.is_empty() && !single.is_empty() {
        return page_not_found();
    }
    let mut report = String::new();
    let mut failed = Vec::new();
    for check in &checks {
        let passes = (check.passes)(&call.core);
        let line = if passes {
            format!("[+]{} ok", check.name)
        } else {
            format!("[-]{} failed: reason withheld", check.name)
        };
        writeln!(report, "{line}").expect("writing to a String does not fail");
        if !passes {
            failed.push(check.name);
        }
    }
    let (code, text) = match (failed.is_empty(), call.query.get("verbose").is_some()) {
        (true, false) => (200, "ok".to_owned()),
        (true, true) => (200, format!("{report}{endpoint} check passed\n")),
        (false, _) => (500, format!("{report}{endpoint} check failed\n")),
    };
    let mut response = Response::new(body::full(text));
    *response.status_mut() = http::StatusCode::from_u16(code).map_err(Status::internal)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if single.is_empty() {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    Ok(response)
}
