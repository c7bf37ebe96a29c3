//! `/healthz`, `/livez` and `/readyz`, as a whole or check by check (follows `healthz.InstallPathHandler`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use apimachinery::Status;
pub use client::slis::Outcomes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};

use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::nonresource::page_not_found;
use crate::query::Query;

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
    let asked = Asked::new(endpoint, rest, &call.query);
    let mut outcomes = Vec::new();
    for check in applying(&call.core, endpoint).filter(|check| asked.means(check.name)) {
        let passes = match asked.excludes(check.name) {
            true => None,
            false => Some(check.passes(&call.core).await),
        };
        outcomes.push((check.name, passes));
    }
    asked.answer(&outcomes, &call.core.health)
}

/// What somebody wants to know of how a server is.
pub struct Asked<'a> {
    endpoint: &'a str,
    /// The one check that is meant; all when empty.
    single: String,
    excluded: BTreeSet<&'a str>,
    verbose: bool,
}

impl<'a> Asked<'a> {
    /// `rest` follows the endpoint in the path.
    pub fn new(endpoint: &'a str, rest: &[&str], query: &'a Query) -> Asked<'a> {
        let excluded = query.all("exclude").collect();
        Asked {
            endpoint,
            single: rest.join("/"),
            excluded,
            verbose: rest.is_empty() && query.get("verbose").is_some(),
        }
    }

    /// Whether the answer is to tell of a check.
    pub fn means(&self, check: &str) -> bool {
        self.single.is_empty() || check == self.single
    }

    /// Whether a check is not to be made, which the answer tells.
    pub fn excludes(&self, check: &str) -> bool {
        self.single.is_empty() && self.excluded.contains(check)
    }

    /// The answer, from the checks that are meant and whether they passed, if they were made.
    pub fn answer(
        &self,
        outcomes: &[(&'static str, Option<bool>)],
        observed: &Outcomes,
    ) -> Result<Response<Body>, Status> {
        if outcomes.is_empty() && !self.single.is_empty() {
            return page_not_found();
        }
        if self.single.is_empty() {
            let made = outcomes.iter().filter_map(|(name, passes)| Some((*name, (*passes)?)));
            made.for_each(|(name, passes)| observed.observe(name, self.endpoint, passes));
        }
        let (endpoint, report) = (self.endpoint, self.report(outcomes));
        let is_well = outcomes.iter().all(|(_, passes)| *passes != Some(false));
        let (code, text) = match (is_well, self.verbose) {
            (true, false) => (StatusCode::OK, "ok".to_owned()),
            (true, true) => (StatusCode::OK, format!("{report}{endpoint} check passed\n")),
            (false, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n")),
        };
        let mut response = Response::new(body::full(text));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if self.single.is_empty() {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        Ok(response)
    }

    /// A line for each check, and one for what nobody can exclude.
    fn report(&self, outcomes: &[(&str, Option<bool>)]) -> String {
        let lines = outcomes.iter().map(|(name, passes)| match passes {
            Some(true) => format!("[+]{name} ok\n"),
            Some(false) => format!("[-]{name} failed: reason withheld\n"),
            None => format!("[+]{name} excluded: ok\n"),
        });
        let mut report: String = lines.collect();
        let is_unknown = |check: &&&str| outcomes.iter().all(|(name, _)| *name != **check);
        let unknown: Vec<String> =
            self.excluded.iter().filter(is_unknown).map(|check| format!("{check:?}")).collect();
        if self.single.is_empty() && !unknown.is_empty() {
            let warning = "warn: some health checks cannot be excluded: no matches for";
            writeln!(report, "{warning} {}", unknown.join(",")).expect("a String takes everything");
        }
        report
    }
}
