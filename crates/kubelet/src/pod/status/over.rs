//! The containers of a pod that is over: each is told to have ended, as far as it can have begun (follows `TerminatePod`
//! of the kubelet's status manager).

use api::view::core::{ContainerState, ContainerStateTerminated, ContainerStatus};

use super::{Teller, UNSEEN_EXIT_CODE};
use crate::pod::is_sidecar;

impl Teller<'_> {
    /// In a pod that is over nothing waits any more, but for what was not to start yet.
    pub fn close_all(
        &self,
        init: &mut [ContainerStatus],
        regular: &mut [ContainerStatus],
        ephemeral: &mut [ContainerStatus],
    ) {
        if self.has_initialized(init, regular) {
            regular.iter_mut().for_each(|status| self.close(status));
        }
        let tried = init.iter().rposition(|status| status.state.waiting.is_none()).map_or(1, |last| last + 1);
        init.iter_mut().take(tried).chain(ephemeral).for_each(|status| self.close(status));
    }

    fn has_initialized(&self, init: &[ContainerStatus], regular: &[ContainerStatus]) -> bool {
        let (Some(spec), Some(last)) = (self.pod.spec.init_containers.last(), init.last()) else {
            return true;
        };
        let succeeded = |state: &ContainerState| state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        let done = match is_sidecar(spec) {
            true => last.state.running.is_some() && last.started == Some(true),
            false => succeeded(&last.state) || succeeded(&last.last_state),
        };
        done || regular.iter().any(|s| s.last_state.terminated.is_some() || s.state.waiting.is_none())
    }

    /// A container that never ran, or whose end was not seen, in a pod that is over.
    fn close(&self, status: &mut ContainerStatus) {
        if status.state.running.is_some() || status.state.terminated.is_some() {
            return;
        }
        if let Some(last) = status.last_state.terminated.take() {
            status.state = ContainerState { terminated: Some(last), ..Default::default() };
            return;
        }
        status.state = ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: UNSEEN_EXIT_CODE,
                reason: "ContainerStatusUnknown".to_owned(),
                message: "The container could not be located when the pod was terminated".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use api::view::core::Pod;
    use apimachinery::json;
    use jiff::Timestamp;

    use crate::observe::{Container, Observed, State};
    use crate::pod::memory::Memory;
    use crate::pod::status::{NodeFacts, pod_status};
    use crate::pod::testing::{container, sandbox};

    /// What is told of `i`, `j` and `a`, the init containers first: a letter for each state.
    fn check(containers: Vec<Container>, expect: &str) {
        let pod: Pod = apimachinery::from_value(json!({"metadata": {"uid": "u"}, "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}}))
        .expect("a pod");
        let observed = Observed { sandboxes: vec![sandbox(true)], containers };
        let node = NodeFacts { host_ips: &[], runtime_name: "cox" };
        let status = pod_status(&pod, &observed, &Memory::default(), &node, true, Timestamp::UNIX_EPOCH);
        let told = status.init_container_statuses.iter().chain(&status.container_statuses);
        let letter = |state: &super::ContainerState| match (&state.waiting, &state.terminated) {
            (Some(_), _) => 'w',
            (_, Some(end)) if end.reason == "ContainerStatusUnknown" => '?',
            _ => 't',
        };
        assert_eq!(told.map(|status| letter(&status.state)).collect::<String>(), expect);
    }

    #[test]
    fn what_was_not_to_start_yet_waits_for_ever() {
        let ended = |name, code| container(name, State::Exited, code, 0);
        check(vec![ended("i", 1)], "tww");
        check(vec![ended("i", 0)], "tww");
        check(vec![ended("j", 0)], "?t?");
        check(vec![ended("i", 0), ended("j", 1)], "ttw");
        check(vec![ended("a", 1)], "?wt");
        check(vec![], "?ww");
    }
}
