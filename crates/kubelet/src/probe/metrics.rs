//! `/metrics/probes`: how probes went and how long they took (follows `ProberResults`, `ProberDuration`).

use std::time::Duration;

use client::metrics::{DEF_BUCKETS, Histogram, Number};

/// Whose container is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    pub container: String,
    pub pod: String,
    pub namespace: String,
    pub pod_uid: String,
}

impl Probed {
    fn labels(&self, kind: &str) -> String {
        let Probed { container, pod, namespace, .. } = self;
        format!("container={container:?},namespace={namespace:?},pod={pod:?},probe_type={kind:?}")
    }
}

#[derive(Debug)]
pub struct ProbeMetrics {
    results: Number,
    durations: Histogram,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        let results = Number::counter(
            "prober_probe_total",
            "Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        let durations = Histogram::new(
            "prober_probe_duration_seconds",
            "Duration in seconds for a probe response.",
            DEF_BUCKETS.to_vec(),
        );
        ProbeMetrics { results, durations }
    }
}

impl ProbeMetrics {
    /// `kind` as events name it. How long a failure took is not told, as upstream.
    pub fn record(&self, probed: &Probed, kind: &str, passed: bool, took: Duration) {
        let labels = probed.labels(kind);
        let result = if passed { "successful" } else { "failed" };
        let uid = &probed.pod_uid;
        self.results.add(&format!("{labels},pod_uid={uid:?},result={result:?}"), 1.0);
        if passed {
            self.durations.observe(&labels, took.as_secs_f64());
        }
    }

    /// A pod that is over is probed no more.
    pub fn forget(&self, namespace: &str, pod: &str, uid: &str) {
        let uid = format!("pod_uid={uid:?},");
        self.results.retain(|labels| !labels.contains(&uid));
        let name = format!(",namespace={namespace:?},pod={pod:?},");
        self.durations.retain(|labels| !labels.contains(&name));
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        self.durations.write(&mut text);
        self.results.write(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(pod: &str) -> Probed {
        Probed {
            container: "c".into(),
            pod: pod.into(),
            namespace: "n".into(),
            pod_uid: format!("{pod}-uid"),
        }
    }

    #[test]
    fn results_are_counted_and_successes_timed_until_the_pod_is_over() {
        let metrics = ProbeMetrics::default();
        let took = Duration::from_millis(20);
        metrics.record(&probed("a"), "Liveness", true, took);
        metrics.record(&probed("a"), "Liveness", false, took);
        metrics.record(&probed("b"), "Readiness", true, took);
        let text = metrics.text();
        for line in [
            r#"prober_probe_total{container="c",namespace="n",pod="a",probe_type="Liveness",pod_uid="a-uid",result="failed"} 1"#,
            r#"prober_probe_duration_seconds_bucket{container="c",namespace="n",pod="a",probe_type="Liveness",le="0.025"} 1"#,
            r#"prober_probe_duration_seconds_count{container="c",namespace="n",pod="a",probe_type="Liveness"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        metrics.forget("n", "a", "a-uid");
        assert!(!metrics.text().contains("pod=\"a\""));
        assert!(metrics.text().contains("pod=\"b\""));
    }
}
