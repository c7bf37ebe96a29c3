//! NodeMetrics and PodMetrics. Pure.

use ::api::view::core::Pod;
use apimachinery::meta::ObjectMeta;
use apimachinery::time::format_time;
use apimachinery::{Value, json};
use jiff::SignedDuration;

use super::{GROUP, VERSION};
use crate::storage::{Storage, Usage};

const KIB: u64 = 1024;

pub fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": format!("{kind}List"), "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items})
}

pub fn node(metadata: &ObjectMeta, storage: &Storage) -> Option<Value> {
    let usage = storage.node(&metadata.name)?;
    let mut node = object("NodeMetrics", metadata, &usage);
    node["usage"] = amounts(&usage);
    Some(node)
}

/// The time is that of the container that was looked at first, the window the shortest one, as upstream has it.
pub fn pod(pod: &Pod, storage: &Storage) -> Option<Value> {
    if pod.is_terminal() {
        return None;
    }
    let ephemeral = pod.spec.ephemeral_containers.iter();
    let all = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let running = |name: &&str| {
        let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let mut statuses = statuses.chain(&pod.status.ephemeral_container_statuses);
        statuses.any(|status| status.name == **name && status.state.running.is_some())
    };
    let names = all.chain(&pod.spec.containers).chain(ephemeral).map(|c| c.name.as_str()).filter(running);
    let usages = storage.pod(&pod.metadata.namespace, &pod.metadata.name, names)?;
    let (_, first) = usages.iter().min_by_key(|(_, usage)| (usage.at, usage.window))?;
    let mut shown = object("PodMetrics", &pod.metadata, first);
    shown["containers"] =
        usages.iter().map(|(name, usage)| json!({"name": name, "usage": amounts(usage)})).collect();
    Some(shown)
}

fn object(kind: &str, of: &ObjectMeta, usage: &Usage) -> Value {
    let mut metadata = json!({"name": of.name, "creationTimestamp": format_time(usage.at)});
    if !of.namespace.is_empty() {
        metadata["namespace"] = of.namespace.as_str().into();
    }
    if !of.labels.is_empty() {
        metadata["labels"] = json!(of.labels);
    }
    json!({
        "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
        "timestamp": format_time(usage.at), "window": duration(usage.window),
    })
}

fn amounts(usage: &Usage) -> Value {
    json!({"cpu": cpu(usage.cpu_nanos), "memory": memory(usage.memory_bytes)})
}

/// A quantity in its canonical form: the largest unit without a remainder.
fn cpu(nanos: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000, ""), (1_000_000, "m"), (1000, "u"), (1, "n")];
    if nanos == 0 {
        return "0".to_owned();
    }
    let unit = UNITS.iter().find(|(size, _)| nanos.is_multiple_of(*size));
    unit.map_or_else(|| format!("{nanos}n"), |(size, name)| format!("{}{name}", nanos / size))
}

/// In kibibytes, as upstream's metrics server tells it, unless that loses something.
fn memory(bytes: u64) -> String {
    if bytes.is_multiple_of(KIB) && bytes > 0 { format!("{}Ki", bytes / KIB) } else { bytes.to_string() }
}

/// As Go writes durations, to the millisecond.
fn duration(of: SignedDuration) -> String {
    let millis = of.as_millis();
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_the_largest_unit_that_fits() {
        let check = |nanos, expect: &str| assert_eq!(cpu(nanos), expect);
        check(0, "0");
        check(2_000_000_000, "2");
        check(250_000_000, "250m");
        check(1_234_000, "1234u");
        check(1_234_567, "1234567n");
        assert_eq!(memory(4096), "4Ki");
        assert_eq!(memory(1), "1");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let check = |millis, expect: &str| assert_eq!(duration(SignedDuration::from_millis(millis)), expect);
        check(1500, "1.5s");
        check(15_000, "15s");
        check(62_003, "1m2.003s");
        check(3_600_000, "1h0m0s");
    }
}
