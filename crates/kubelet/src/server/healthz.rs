//! `/healthz` of the kubelet, as a whole or check by check (follows `healthz.InstallHandler`).

use client::query::query_value;
use client::slis::Outcomes;
use http::{Response, StatusCode};

use super::{Body, text};

/// Upstream's. Who answers is alive, and no loop could be stuck beside that, so none fails.
pub const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];
const ENDPOINT: &str = "healthz";

/// `check` is the one that is meant, or nothing for all.
pub fn answer(check: &str, query: &str, outcomes: &Outcomes) -> Response<Body> {
    if check.is_empty() {
        CHECKS.iter().for_each(|check| outcomes.observe(check, ENDPOINT, true));
    }
    let is_verbose = query_value(query, "verbose").is_some();
    let report = if is_verbose && check.is_empty() { report() } else { "ok".to_owned() };
    text(StatusCode::OK, report)
}

fn report() -> String {
    let lines: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
    format!("{lines}{ENDPOINT} check passed\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_reported_to_who_asks() {
        assert_eq!(report(), "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n");
    }
}
