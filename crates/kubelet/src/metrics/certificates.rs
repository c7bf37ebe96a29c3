//! How long the kubelet's own certificates hold, and how their renewal goes (follows the metrics of upstream's
//! `pkg/kubelet/certificate` and of its client certificate).

use std::sync::{Mutex, MutexGuard};

use client::metrics::{Histogram, Number, head, sample};
use jiff::Timestamp;

use crate::certificate::Purpose;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
/// Ages of certificates that are replaced, from a minute to four years (`certificateRotationAge`).
const AGES: [f64; 10] = [
    MINUTE,
    HOUR,
    4.0 * HOUR,
    DAY,
    7.0 * DAY,
    30.0 * DAY,
    90.0 * DAY,
    180.0 * DAY,
    360.0 * DAY,
    1440.0 * DAY,
];

/// One certificate that is kept good.
#[derive(Debug)]
pub struct CertificateMetrics {
    ttl: &'static str,
    renew_errors: Number,
    /// Of the serving certificate; upstream does not time the client's.
    rotations: Option<Histogram>,
    /// When the certificate that is shown ends; none if there is no good one.
    not_after: Mutex<Option<Timestamp>>,
}

impl CertificateMetrics {
    pub fn new(purpose: Purpose) -> Self {
        let (ttl, errors) = match purpose {
            Purpose::Client => (
                "kubelet_certificate_manager_client_ttl_seconds",
                "kubelet_certificate_manager_client_expiration_renew_errors",
            ),
            Purpose::Serving => {
                ("kubelet_certificate_manager_server_ttl_seconds", "kubelet_server_expiration_renew_errors")
            }
        };
        let rotations = (purpose == Purpose::Serving).then(|| {
            Histogram::new(
                "kubelet_certificate_manager_server_rotation_seconds",
                "How old serving certificates were when another took their place.",
                AGES.to_vec(),
            )
        });
        let renew_errors = Number::total(errors, "Renewals of the certificate that failed.");
        CertificateMetrics { ttl, renew_errors, rotations, not_after: Mutex::default() }
    }

    /// A certificate is shown that ends then.
    pub fn shown(&self, not_after: Option<Timestamp>) {
        *self.not_after() = not_after;
    }

    /// Another certificate takes the place of one that began to hold then.
    pub fn rotated(&self, not_before: Timestamp, now: Timestamp) {
        if let Some(rotations) = &self.rotations {
            rotations.observe("", now.duration_since(not_before).as_secs_f64());
        }
    }

    pub fn renewal_failed(&self) {
        self.renew_errors.add("", 1.0);
    }

    pub fn write(&self, text: &mut String, now: Timestamp) {
        head(text, self.ttl, "For how long the certificate holds; infinite if there is none.", "gauge");
        let left = self.not_after().map(|end| end.duration_since(now).as_secs() as f64);
        sample(text, self.ttl, "", "", "", left.unwrap_or(f64::INFINITY));
        self.renew_errors.write(text);
        if let Some(rotations) = &self.rotations {
            rotations.write(text);
        }
    }

    fn not_after(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.not_after.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metrics: &CertificateMetrics, now: i64, line: &str) {
        let mut text = String::new();
        metrics.write(&mut text, Timestamp::from_second(now).expect("a time"));
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn a_certificate_holds_until_its_end_and_then_is_told_to_be_late() {
        let metrics = CertificateMetrics::new(Purpose::Serving);
        check(&metrics, 0, "kubelet_certificate_manager_server_ttl_seconds +Inf");
        metrics.shown(Timestamp::from_second(100).ok());
        check(&metrics, 30, "kubelet_certificate_manager_server_ttl_seconds 70");
        check(&metrics, 130, "kubelet_certificate_manager_server_ttl_seconds -30");
        metrics.renewal_failed();
        check(&metrics, 0, "kubelet_server_expiration_renew_errors 1");
        metrics.rotated(Timestamp::UNIX_EPOCH, Timestamp::from_second(3000).expect("a time"));
        check(&metrics, 0, r#"kubelet_certificate_manager_server_rotation_seconds_bucket{le="60"} 0"#);
        check(&metrics, 0, r#"kubelet_certificate_manager_server_rotation_seconds_bucket{le="3600"} 1"#);
    }

    #[test]
    fn the_clients_certificate_has_names_of_its_own() {
        let metrics = CertificateMetrics::new(Purpose::Client);
        check(&metrics, 0, "kubelet_certificate_manager_client_ttl_seconds +Inf");
        check(&metrics, 0, "kubelet_certificate_manager_client_expiration_renew_errors 0");
    }
}
