//! The table row of a pod: one word for what its containers and conditions say together (follows `printPod`).

use std::sync::LazyLock;

use apimachinery::meta::{str_at, value_at};
use apimachinery::value::format_compact;
use apimachinery::{Text, Value, time};
use jiff::Timestamp;

use super::resources::is_sidecar;
use crate::columns::{AGE, NAME, NONE, age, column, count, human_duration, items, name, units, wide};
use crate::shown::Shown;
use crate::strategy::Column;

pub const COLUMNS: [Column; 9] = [
    NAME,
    column("Ready", "string", "Containers that are ready, of all that should be."),
    column("Status", "string", "What the containers' states come to in one word."),
    column("Restarts", "string", "How often containers were restarted, and when last."),
    AGE,
    wide("IP", "string", "The pod's first address."),
    wide("Node", "string", "The node the pod runs on."),
    wide("Nominated Node", "string", "The node on which room is being made for the pod."),
    wide("Readiness Gates", "string", "Readiness gates that are met, of all."),
];

/// What [`row`] reads.
pub static SHOWN: LazyLock<Shown> = LazyLock::new(|| {
    const PATHS: [&str; 13] = [
        "metadata.name",
        "metadata.creationTimestamp",
        "metadata.deletionTimestamp",
        "spec.containers.name",
        "spec.initContainers.name",
        "spec.initContainers.restartPolicy",
        "spec.nodeName",
        "spec.readinessGates.conditionType",
        "status.phase",
        "status.reason",
        "status.nominatedNodeName",
        "status.podIPs.ip",
        "status.conditions",
    ];
    const OF_A_CONTAINER: [&str; 8] = [
        "name",
        "ready",
        "started",
        "restartCount",
        "state.running",
        "state.terminated",
        "state.waiting.reason",
        "lastState.terminated.finishedAt",
    ];
    let statuses = ["status.initContainerStatuses", "status.containerStatuses"];
    let of_containers = statuses.iter().flat_map(|list| OF_A_CONTAINER.map(|path| format!("{list}.{path}")));
    let paths: Vec<String> = PATHS.map(str::to_owned).into_iter().chain(of_containers).collect();
    Shown::of(paths.iter().map(|path| path.split('.')))
});

const GATED: &str = "SchedulingGated";
const NODE_LOST: &str = "NodeLost";

pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    // Each is looked for once: lists have many rows.
    let [spec, status] = ["spec", "status"].map(|part| pod.get(part).unwrap_or(&Value::Null));
    let deleted = value_at(pod, &["metadata", "deletionTimestamp"]).is_some();
    let summary = Summary::of(spec, status, deleted);
    let or_none = |text: &str| Value::from(if text.is_empty() { NONE } else { text });
    let restarts = summary.restarts_text(now);
    let ip = items(status, &["podIPs"]).first().map_or("", |ip| str_at(ip, &["ip"]));
    vec![
        name(pod),
        units([(summary.ready, "/"), (summary.total, "")]).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(ip),
        or_none(str_at(spec, &["nodeName"])),
        or_none(str_at(status, &["nominatedNodeName"])),
        readiness_gates(spec, status).into(),
    ]
}

/// What a pod's statuses add up to.
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: Text,
}

impl Summary {
    fn of(spec: &Value, status: &Value, deleted: bool) -> Self {
        let init_containers = items(spec, &["initContainers"]);
        let sidecars: Vec<&str> = init_containers
            .iter()
            .filter(|container| is_sidecar(container))
            .map(|container| str_at(container, &["name"]))
            .collect();
        let mut summary = Summary {
            ready: 0,
            total: items(spec, &["containers"]).len() + sidecars.len(),
            restarts: 0,
            last_restart: None,
            reason: initial_reason(status),
        };
        let mut of_sidecars = (0, None);
        let initializing =
            summary.add_init_containers(status, init_containers.len(), &sidecars, &mut of_sidecars);
        if !initializing || has_true_condition(status, "Initialized") {
            (summary.restarts, summary.last_restart) = of_sidecars;
            summary.add_containers(status);
        }
        if deleted {
            summary.consider_deletion(status);
        }
        summary
    }

    /// Whether an init container still stands in the way.
    fn add_init_containers(
        &mut self,
        pod_status: &Value,
        total: usize,
        sidecars: &[&str],
        of_sidecars: &mut (i64, Option<Timestamp>),
    ) -> bool {
        for (index, status) in items(pod_status, &["initContainerStatuses"]).iter().enumerate() {
            self.add_restarts(status);
            let sidecar = sidecars.contains(&str_at(status, &["name"]));
            if sidecar {
                of_sidecars.0 += count(status, &["restartCount"]);
                of_sidecars.1 = of_sidecars.1.max(last_finished(status));
            }
            let terminated = value_at(status, &["state", "terminated"]);
            let started = status.get("started") == Some(&Value::Bool(true));
            match terminated {
                Some(state) if count(state, &["exitCode"]) == 0 => continue,
                _ if sidecar && started => {
                    self.ready += usize::from(is_ready(status));
                    continue;
                }
                Some(state) => self.reason = format_compact!("Init:{}", termination_reason(state)),
                None => match str_at(status, &["state", "waiting", "reason"]) {
                    "" | "PodInitializing" => self.reason = format_compact!("Init:{index}/{total}"),
                    reason => self.reason = format_compact!("Init:{reason}"),
                },
            }
            return true;
        }
        false
    }

    fn add_containers(&mut self, pod_status: &Value) {
        let mut running = false;
        let mut error = None;
        for status in items(pod_status, &["containerStatuses"]).iter().rev() {
            self.add_restarts(status);
            let waiting = str_at(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if let Some(state) = value_at(status, &["state", "terminated"]) {
                self.reason = termination_reason(state);
                if count(state, &["exitCode"]) != 0 {
                    error = Some(self.reason.clone());
                }
            } else if is_ready(status) && value_at(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            match error {
                _ if running && has_true_condition(pod_status, "Ready") => self.reason = "Running".into(),
                Some(error) => self.reason = error,
                None if running => self.reason = "NotReady".into(),
                None => {}
            }
        }
    }

    fn add_restarts(&mut self, status: &Value) {
        self.restarts += count(status, &["restartCount"]);
        self.last_restart = self.last_restart.max(last_finished(status));
    }

    fn consider_deletion(&mut self, status: &Value) {
        if str_at(status, &["reason"]) == NODE_LOST {
            self.reason = "Unknown".into();
        } else if !matches!(str_at(status, &["phase"]), "Succeeded" | "Failed") {
            self.reason = "Terminating".into();
        }
    }

    fn restarts_text(&self, now: Timestamp) -> Text {
        match self.last_restart {
            Some(at) if self.restarts != 0 => {
                format_compact!(
                    "{} ({} ago)",
                    self.restarts,
                    human_duration(now.as_second() - at.as_second())
                )
            }
            _ => units([(self.restarts, "")]),
        }
    }
}

fn initial_reason(status: &Value) -> Text {
    let gated = items(status, &["conditions"])
        .iter()
        .any(|c| str_at(c, &["type"]) == "PodScheduled" && str_at(c, &["reason"]) == GATED);
    match str_at(status, &["reason"]) {
        _ if gated => GATED.into(),
        "" => str_at(status, &["phase"]).into(),
        reason => reason.into(),
    }
}

fn termination_reason(state: &Value) -> Text {
    match (str_at(state, &["reason"]), count(state, &["signal"])) {
        ("", 0) => format_compact!("ExitCode:{}", count(state, &["exitCode"])),
        ("", signal) => format_compact!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn last_finished(status: &Value) -> Option<Timestamp> {
    time::parse_time(str_at(status, &["lastState", "terminated", "finishedAt"]))
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

fn has_true_condition(status: &Value, kind: &str) -> bool {
    items(status, &["conditions"])
        .iter()
        .any(|c| str_at(c, &["type"]) == kind && str_at(c, &["status"]) == "True")
}

fn readiness_gates(spec: &Value, status: &Value) -> Text {
    let gates = items(spec, &["readinessGates"]);
    if gates.is_empty() {
        return NONE.into();
    }
    let met =
        gates.iter().filter(|gate| has_true_condition(status, str_at(gate, &["conditionType"]))).count();
    format_compact!("{met}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn check(status: Value, expect: [&str; 3]) {
        let pod = json!({"metadata": {"name": "p"}, "status": status, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let now = time::parse_time("2026-01-01T00:10:00Z").expect("a time");
        let cells = row(&pod, now);
        let shown: Vec<&str> = cells[1..4].iter().filter_map(Value::as_str).collect();
        assert_eq!(shown, expect, "{pod}");
    }

    #[test]
    fn one_word_says_how_a_pod_fares() {
        check(json!({"phase": "Pending"}), ["0/2", "Pending", "0"]);
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
        check(init(json!({"running": {}})), ["0/2", "Init:0/1", "0"]);
        check(init(json!({"terminated": {"exitCode": 2}})), ["0/2", "Init:ExitCode:2", "0"]);
        check(init(json!({"waiting": {"reason": "ErrImagePull"}})), ["0/2", "Init:ErrImagePull", "0"]);
        check(
            json!({"phase": "Running", "containerStatuses": [
                {"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 3,
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}},
                {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            ["1/2", "CrashLoopBackOff", "3 (5m ago)"],
        );
        check(
            json!({"phase": "Succeeded", "containerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            ["0/2", "Completed", "0"],
        );
        check(
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": GATED}]}),
            ["0/2", GATED, "0"],
        );
    }

    #[test]
    fn a_deleted_pod_is_terminating() {
        let pod =
            json!({"metadata": {"name": "p", "deletionTimestamp": "t"}, "status": {"phase": "Running"}});
        assert_eq!(row(&pod, Timestamp::UNIX_EPOCH)[2], "Terminating");
    }
}
