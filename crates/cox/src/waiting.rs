//! What a command says while something takes long: what it waits for, and each reason the cluster
//! gives, once. Reasons come as changes of objects; what they mean is decided without I/O.

use std::collections::HashSet;
use std::time::Duration;

use api::resource::EVENTS;
use api::view::Object;
use api::view::core::Node;
use apimachinery::meta::{ObjectMeta, find_condition};
use apimachinery::time;
use client::{CancellationToken, Client, Delta, Informers};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::progress::Progress;

/// A healthy start has no step that takes longer.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Waits for `outcome`. Once that takes long, says so and lets `reasons` say why.
pub async fn wait<T>(
    progress: &Progress,
    what: &str,
    reasons: impl Future<Output = ()>,
    outcome: impl Future<Output = T>,
) -> T {
    let complain = async {
        tokio::time::sleep(SILENCE_MAX).await;
        progress.waiting(&format!("still waiting for {what}"));
        reasons.await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = outcome => outcome,
        never = complain => never,
    }
}

/// Tells why the node is not ready, as its condition says.
pub async fn tell_node(progress: &Progress, client: Client, name: &str) {
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let nodes =
        Informers::new(client, stop).get_selected(api::resource::NODES, &format!("metadata.name={name}"));
    tell(progress, nodes.subscribe(), why_not_ready).await;
}

/// Tells the warnings from `since` on about objects of the namespace that `concerns`.
pub async fn tell_warnings(
    progress: &Progress,
    client: Client,
    since: Timestamp,
    namespace: &str,
    concerns: impl Fn(&str) -> bool,
) {
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let events = Informers::new(client, stop).get_selected(EVENTS, "type=Warning");
    let of_interest = |event: &Event| {
        let object = &event.involved_object;
        (object.namespace == namespace && concerns(&object.name)).then(|| warning(event, since)).flatten()
    };
    tell(progress, events.subscribe(), of_interest).await;
}

/// A line for a person, and what makes it the same as one told before.
#[derive(Debug, PartialEq, Eq)]
struct Reason {
    key: String,
    line: String,
}

async fn tell<V: Object>(
    progress: &Progress,
    mut changes: UnboundedReceiver<Delta<V>>,
    reason: impl Fn(&V) -> Option<Reason>,
) {
    let mut told = HashSet::new();
    while let Some(delta) = changes.recv().await {
        if let Some(Reason { key, line }) = reason(delta.object())
            && told.insert(key)
        {
            progress.waiting(&line);
        }
    }
}

fn why_not_ready(node: &Node) -> Option<Reason> {
    let ready = find_condition(&node.status.conditions, "Ready").filter(|ready| !ready.is_true())?;
    let line = format!("node {}: {}: {}", node.metadata.name, ready.reason, ready.message);
    Some(Reason { key: line.clone(), line })
}

/// The part of a `v1` Event that is told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    metadata: ObjectMeta,
    involved_object: ObjectReference,
    reason: String,
    message: String,
    #[serde(with = "time::rfc3339")]
    last_timestamp: Option<Timestamp>,
    #[serde(with = "time::micro_time")]
    event_time: Option<Timestamp>,
    series: Option<EventSeries>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectReference {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventSeries {
    #[serde(with = "time::micro_time")]
    last_observed_time: Option<Timestamp>,
}

impl Object for Event {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// A warning that was seen since then, to the second, as most Events say it: those of an earlier start are kept for an
/// hour. Repeated ones differ in their messages (an id, a number), so it is told once for each object and reason.
fn warning(event: &Event, since: Timestamp) -> Option<Reason> {
    let Event { involved_object: object, reason, message, .. } = event;
    let series = event.series.as_ref().and_then(|series| series.last_observed_time);
    let seen = [event.last_timestamp, event.event_time, series].into_iter().flatten().max()?;
    (seen.as_second() >= since.as_second()).then(|| {
        let about = format!("{}/{}: {reason}", object.kind.to_lowercase(), object.name);
        Reason { line: format!("{about}: {message}"), key: about }
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        apimachinery::from_value(object).expect("an object")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_warning_is_told_with_its_object_once_for_each_reason() {
        let event = |message: &str, times: Value| {
            let mut object =
                json!({"involvedObject": {"kind": "Pod", "name": "demo-1"}, "reason": "FailedMount"});
            object.as_object_mut().expect("an object").extend(times.as_object().expect("times").clone());
            object["message"] = message.into();
            warning(&read(object), at("2026-01-01T00:00:10.5Z"))
        };
        let first = event("no disk 1", json!({"lastTimestamp": "2026-01-01T00:00:10Z"})).expect("told");
        assert_eq!(first.line, "pod/demo-1: FailedMount: no disk 1");
        let again =
            event("no disk 2", json!({"eventTime": "2026-01-01T00:00:11.000000Z"})).expect("seen later");
        assert_eq!(again.key, first.key);
        let repeated = json!({"eventTime": "2026-01-01T00:00:01.000000Z", "lastTimestamp": null,
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:12.000000Z"}});
        assert!(event("", repeated).is_some(), "seen first before, and again since");
        assert_eq!(
            event("old", json!({"lastTimestamp": "2026-01-01T00:00:09Z"})),
            None,
            "of an earlier start"
        );
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let node = |status: &str| {
            let ready =
                json!({"type": "Ready", "status": status, "reason": "KubeletNotReady", "message": "no CNI"});
            why_not_ready(&read(json!({"metadata": {"name": "n"}, "status": {"conditions": [ready]}})))
        };
        assert_eq!(node("False").expect("told").line, "node n: KubeletNotReady: no CNI");
        assert_eq!(node("True"), None);
    }

    #[test]
    fn what_is_waited_for_is_said_when_it_takes_long_and_each_reason_once() {
        let said = |takes: Duration| {
            let (pipe, mut told) = (tempfile::tempfile().expect("a file"), String::new());
            let progress = Progress::to_parent(pipe.try_clone().expect("a second handle"));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let (informer, feeder) = client::Informer::<Node>::detached();
                for reason in ["A", "B", "A"] {
                    let ready = json!({"type": "Ready", "status": "False", "reason": reason, "message": "m"});
                    feeder.apply(read(
                        json!({"metadata": {"name": reason}, "status": {"conditions": [ready]}}),
                    ));
                }
                let reasons = tell(&progress, informer.subscribe(), why_not_ready);
                wait(&progress, "it", reasons, tokio::time::sleep(takes)).await;
            });
            std::io::Seek::rewind(&mut &pipe).expect("a file");
            std::io::Read::read_to_string(&mut &pipe, &mut told).expect("text");
            told
        };
        assert_eq!(said(SILENCE_MAX - Duration::from_millis(1)), "");
        assert_eq!(
            said(SILENCE_MAX + Duration::from_millis(1)),
            "wait still waiting for it\nwait node A: A: m\nwait node B: B: m\n"
        );
    }
}
