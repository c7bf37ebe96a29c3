//! Which probes of a pod run, and what their verdicts say (follows the kubelet's `prober_manager.go`).

use api::view::core::Container;
use jiff::Timestamp;

use super::Worker;
use crate::observe::{self, Observed};
use crate::pod::memory::ProbeState;
use crate::probe::{self, ProbeType, Probed, Record, Target, Verdict};

impl Worker {
    pub(super) fn hear_probe(&mut self, verdict: Verdict) {
        if let Some((reason, message)) = &verdict.warning {
            self.warn_of(&verdict.container_name, reason, message.clone());
        }
        let Some(state) = self.memory.probes.get_mut(&verdict.container_id) else { return };
        match (verdict.kind, verdict.passed) {
            (ProbeType::Startup, Some(true)) => state.started = true,
            (ProbeType::Readiness, Some(passed)) => state.ready = passed,
            (ProbeType::Startup | ProbeType::Liveness, Some(false)) => {
                let kind = verdict.kind.as_str().to_lowercase();
                let why =
                    format!("Container {} failed {kind} probe, will be restarted", verdict.container_name);
                self.memory.unhealthy.insert(verdict.container_id, why);
            }
            _ => {}
        }
    }

    /// Starts the probes that the container's state asks for and that do not run yet.
    pub(super) fn probe(
        &mut self,
        observed: &Observed,
        spec: &Container,
        running: &observe::Container,
        now: Timestamp,
    ) {
        let id = running.id.as_str();
        let known = crate::pod::container_status(&self.pod, &spec.name);
        let initial = || ProbeState::initial(spec, id, known);
        let state = *self.memory.probes.entry(id.to_owned()).or_insert_with(initial);
        if self.memory.unhealthy.contains_key(id) {
            return;
        }
        let probes = if state.started {
            [(ProbeType::Readiness, &spec.readiness_probe), (ProbeType::Liveness, &spec.liveness_probe)]
        } else {
            [(ProbeType::Startup, &spec.startup_probe), (ProbeType::Startup, &None)]
        };
        for (kind, probe) in probes {
            let Some(probe) = probe else { continue };
            let key = (id.to_owned(), kind);
            let unwanted = self.terminating.is_cancelled() && kind.restarts();
            if unwanted || self.probers.contains_key(&key) {
                continue;
            }
            let target = self.target(observed, spec, id);
            let delay = probe::delay(probe, running.started_at, now);
            let record = self.record(spec);
            let task = probe::run(target, kind, probe.clone(), delay, record, self.sender.clone());
            let task = tokio::spawn(task);
            self.probers.insert(key, task.abort_handle());
        }
    }

    /// A container that is to end anyway is not called unhealthy (upstream: `StopLivenessAndStartup`).
    pub(super) fn stop_restarting_probes(&mut self) {
        self.probers.retain(|(_, kind), prober| {
            if kind.restarts() {
                prober.abort();
            }
            !kind.restarts()
        });
    }

    pub(super) fn target(&self, observed: &Observed, spec: &Container, id: &str) -> Target {
        let host = self.pod.spec.host_network.then_some(self.shared.config.node_ip);
        let own = observed.ready_sandbox().and_then(|s| s.ips.first()).and_then(|ip| ip.parse().ok());
        Target {
            runtime: self.shared.runtime.clone(),
            container_id: id.to_owned(),
            spec: spec.clone(),
            pod_ip: host.or(own),
        }
    }

    fn record(&self, spec: &Container) -> Record {
        let meta = &self.pod.metadata;
        let probed = Probed {
            container: spec.name.clone(),
            pod: meta.name.clone(),
            namespace: meta.namespace.clone(),
            pod_uid: meta.uid.clone(),
        };
        Record { metrics: self.shared.probe_metrics.clone(), probed }
    }
}
