//! What came of the checks of a server's health so far, for `/metrics/slis` (follows component-base's `slis`).

use jiff::Timestamp;

use crate::metrics::Number;
use crate::process;

/// How checks turned out whenever a server was asked for all of them.
#[derive(Debug)]
pub struct Outcomes {
    latest: Number,
    totals: Number,
}

impl Default for Outcomes {
    fn default() -> Self {
        Outcomes {
            latest: Number::gauge(
                "kubernetes_healthcheck",
                "[STABLE] This metric records the result of a single healthcheck.",
            ),
            totals: Number::counter(
                "kubernetes_healthchecks_total",
                "[STABLE] This metric records the results of all healthcheck.",
            ),
        }
    }
}

impl Outcomes {
    pub fn observe(&self, check: &str, endpoint: &str, passes: bool) {
        let labels = format!("name={check:?},type={endpoint:?}");
        self.latest.set(&labels, f64::from(u8::from(passes)));
        let status = if passes { "success" } else { "error" };
        self.totals.add(&format!("{labels},status={status:?}"), 1.0);
    }

    /// What `/metrics/slis` shows.
    pub fn render(&self, now: Timestamp) -> String {
        let mut page = String::new();
        self.latest.write(&mut page);
        self.totals.write(&mut page);
        process::write_start(&mut page, now);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_outcome_is_told_and_all_are_counted() {
        let outcomes = Outcomes::default();
        for passes in [true, true, false] {
            outcomes.observe("ping", "healthz", passes);
        }
        let page = outcomes.render(Timestamp::now());
        for line in [
            r#"kubernetes_healthcheck{name="ping",type="healthz"} 0"#,
            r#"kubernetes_healthchecks_total{name="ping",type="healthz",status="success"} 2"#,
            r#"kubernetes_healthchecks_total{name="ping",type="healthz",status="error"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "no {line} in {page}");
        }
        assert!(page.contains("\nprocess_start_time_seconds "), "{page}");
    }
}
