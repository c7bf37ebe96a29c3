//! What is counted about auditing, under upstream's metric names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::{LEVELS, Level};
use crate::prometheus::head;

/// What may fail to take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    Buffered,
    Log,
    Truncate,
    Webhook,
}

const PLUGINS: [&str; 4] = ["buffered", "log", "truncate", "webhook"];

#[derive(Debug, Default)]
pub struct Metrics {
    events: AtomicU64,
    rejected: AtomicU64,
    /// In the order of [`LEVELS`].
    levels: [AtomicU64; LEVELS.len()],
    /// In the order of [`PLUGINS`].
    errors: [AtomicU64; PLUGINS.len()],
}

impl Metrics {
    pub fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused because it could not be told of.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub fn level(&self, level: Level) {
        self.levels[level as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Logs and counts that events are lost.
    pub fn lost(&self, plugin: Plugin, events: usize, error: &str) {
        let name = PLUGINS[plugin as usize];
        tracing::error!(plugin = name, events, error, "audit events are lost");
        self.errors[plugin as usize].fetch_add(events as u64, Ordering::Relaxed);
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a String does not fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "apiserver_audit_event_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of audit events generated and sent to the audit backend.",
        )?;
        writeln!(out, "{name} {}", count(&self.events))?;
        let name = "apiserver_audit_error_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
        )?;
        for (plugin, errors) in PLUGINS.iter().zip(&self.errors) {
            writeln!(out, "{name}{{plugin=\"{plugin}\"}} {}", count(errors))?;
        }
        let name = "apiserver_audit_level_total";
        head(out, name, "counter", "[ALPHA] Counter of policy levels for audit events (1 per request).")?;
        for (level, requests) in LEVELS.iter().zip(&self.levels) {
            writeln!(out, "{name}{{level=\"{level}\"}} {}", count(requests))?;
        }
        let name = "apiserver_audit_requests_rejected_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.",
        )?;
        writeln!(out, "{name} {}", count(&self.rejected))
    }
}
