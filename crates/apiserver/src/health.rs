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
    of: Of,
}

/// What a check asks.
enum Of {
    Server(fn(&Core) -> bool),
    /// The plugins that guard keys; there is no such check without plugins.
    Plugins,
}

const CHECKS: [Check; 6] = [
    Check { name: "ping", readiness_only: false, of: Of::Server(|_| true) },
    Check { name: "etcd", readiness_only: false, of: Of::Server(|core| core.store.is_followed()) },
    Check { name: "kms-providers", readiness_only: false, of: Of::Plugins },
    Check { name: "etcd-readiness", readiness_only: true, of: Of::Server(|core| core.store.is_followed()) },
    Check {
        name: "poststarthook/rbac/bootstrap-roles",
        readiness_only: true,
        of: Of::Server(Core::is_bootstrapped),
    },
    Check { name: "shutdown", readiness_only: true, of: Of::Server(|core| !core.draining.is_cancelled()) },
];

impl Check {
    async fn passes(&self, core: &Core) -> bool {
        match (&self.of, &core.config.encryption) {
            (Of::Server(passes), _) => passes(core),
            (Of::Plugins, Some(encryption)) => encryption.check().await.is_ok(),
            (Of::Plugins, None) => true,
        }
    }
}

pub fn paths(core: &Core) -> Vec<String> {
    let endpoints = ["healthz", "livez", "readyz"];
    let all = endpoints.iter().flat_map(|endpoint| {
        let checks = applying(core, endpoint).map(move |check| format!("/{endpoint}/{}", check.name));
        std::iter::once(format!("/{endpoint}")).chain(checks)
    });
    all.collect()
}

fn applying(core: &Core, endpoint: &str) -> impl Iterator<Item = &'static Check> + use<> {
    let ready = endpoint == "readyz";
    let has_plugins = core.config.encryption.as_ref().is_some_and(|encryption| encryption.has_plugins());
    CHECKS
        .iter()
        .filter(move |check| ready || !check.readiness_only)
        .filter(move |check| has_plugins || !matches!(check.of, Of::Plugins))
}

pub async fn serve(call: &Call, endpoint: &str, rest: &[&str]) -> Result<Response<Body>, Status> {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let single = rest.join("/");
    let checks: Vec<&Check> = applying(&call.core, endpoint)
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
        let passes = check.passes(&call.core).await;
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
