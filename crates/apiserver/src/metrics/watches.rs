//! What watches bring their clients: counted by kind, without a lock while they run.

use std::collections::BTreeMap;
use std::fmt::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::prometheus::{Histograms, Label, Metric, SharedHistogram, head};

/// Upper bounds in bytes of `apiserver_watch_events_sizes`.
const SIZE_BUCKETS: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
/// Upper bounds in seconds of `apiserver_watch_list_duration_seconds`.
const LIST_BUCKETS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

const BY_KIND: [&str; 3] = ["group", "resource", "version"];
const EVENTS: Metric<3> = Metric {
    name: "apiserver_watch_events_total",
    help: "[ALPHA] Number of events sent in watch clients",
    labels: BY_KIND,
};
const SIZES: Metric<3> = Metric {
    name: "apiserver_watch_events_sizes",
    help: "[ALPHA] Watch event size distribution in bytes",
    labels: BY_KIND,
};
const LISTS: Metric<4> = Metric {
    name: "apiserver_watch_list_duration_seconds",
    help: "[BETA] Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
    labels: ["group", "resource", "scope", "version"],
};

/// What the watches of one kind have brought.
#[derive(Debug)]
pub struct Sent {
    events: AtomicU64,
    sizes: SharedHistogram<{ SIZE_BUCKETS.len() }>,
}

impl Sent {
    pub fn event(&self, bytes: usize) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.sizes.observe(bytes as f64);
    }
}

#[derive(Debug)]
pub struct Watches {
    /// Of kinds that are served: there are as many as those.
    sent: Mutex<BTreeMap<[Label; 3], Arc<Sent>>>,
    lists: Histograms<4>,
}

impl Default for Watches {
    fn default() -> Self {
        Watches { sent: Mutex::default(), lists: Histograms::new(LISTS, &LIST_BUCKETS) }
    }
}

impl Watches {
    /// By group, resource and version.
    pub fn of(&self, kind: [&String; 3]) -> Arc<Sent> {
        let kind = kind.map(|text| Label::from(text.clone()));
        let sizes = || SharedHistogram::new(&SIZE_BUCKETS, 1.0);
        let new = || Arc::new(Sent { events: AtomicU64::new(0), sizes: sizes() });
        self.sent.lock().entry(kind).or_insert_with(new).clone()
    }

    /// A watch has brought all that is there already; by group, resource, scope and version.
    pub fn listed(&self, kind: [&String; 4], took: Duration) {
        self.lists.observe(kind.map(|text| Label::from(text.clone())), took.as_secs_f64());
    }

    pub fn write(&self, out: &mut String) -> Result {
        let sent: Vec<([Label; 3], Arc<Sent>)> =
            self.sent.lock().iter().map(|(kind, sent)| (kind.clone(), sent.clone())).collect();
        let rows = sent.iter().map(|(kind, sent)| (kind.clone(), sent.events.load(Ordering::Relaxed) as f64));
        EVENTS.write(out, "counter", rows)?;
        head(out, SIZES.name, "histogram", SIZES.help)?;
        for (kind, sent) in &sent {
            sent.sizes.write(out, SIZES.name, &SIZES.text(kind))?;
        }
        self.lists.write(out)
    }
}
