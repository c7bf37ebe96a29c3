//! All containers of a pod start anew when one ends as a rule says (follows `ShouldAllContainersRestart` and
//! `getContainersToReset`). The pod keeps its sandbox, address and volumes.

use api::view::core::{Container as Spec, Pod};

use super::actions::matching_rule;
use crate::observe::{Container, Observed, State};

/// What a rule's action is called.
const ACTION: &str = "RestartAllContainers";
/// The condition of pods with such a rule.
pub const CONDITION: &str = "AllContainersRestarting";
/// Why a container is not there meanwhile.
pub const REASON: &str = "RestartingAllContainers";
pub const MESSAGE: &str = "The container is removed because RestartAllContainers in place";

fn restartable(pod: &Pod) -> impl DoubleEndedIterator<Item = &Spec> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

/// Whether some container has such a rule.
pub fn could_be(pod: &Pod) -> bool {
    restartable(pod).any(|spec| spec.restart_policy_rules.iter().any(|rule| rule.action == ACTION))
}

/// Whether a container has ended so: it is the last to be removed, and as long as it is there the restart is not done.
pub fn is_due(pod: &Pod, observed: &Observed) -> bool {
    restartable(pod).any(|spec| observed.container(&spec.name).is_some_and(|c| demands(spec, c)))
}

fn demands(spec: &Spec, container: &Container) -> bool {
    container.state == State::Exited
        && spec.restart_policy.is_some()
        && matching_rule(spec, container.exit_code) == Some(ACTION)
}

/// What is to be removed before anything starts again: regular containers before init containers, and those that
/// demand the restart only when nothing else is left.
pub fn to_remove<'o>(pod: &Pod, observed: &'o Observed) -> Vec<&'o Container> {
    let (mut sources, mut others) = (Vec::new(), Vec::new());
    for spec in restartable(pod).rev() {
        for container in observed.containers.iter().filter(|c| c.name == spec.name) {
            let list = if demands(spec, container) { &mut sources } else { &mut others };
            list.push(container);
        }
    }
    if others.is_empty() { sources } else { others }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::pod::testing;

    fn pod() -> Pod {
        let rules = json!([{"action": ACTION, "exitCodes": {"operator": "In", "values": [42]}}]);
        apimachinery::from_value(
            json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"},
            {"name": "b", "restartPolicy": "Never", "restartPolicyRules": rules}]}}),
        )
        .expect("a pod")
    }

    fn check(containers: &[(&str, State, i32)], due: bool, expect: &[&str]) {
        let containers =
            containers.iter().map(|(name, state, code)| testing::container(name, *state, *code, 0));
        let observed = Observed { containers: containers.collect(), ..Default::default() };
        assert_eq!(is_due(&pod(), &observed), due);
        if due {
            let removed: Vec<&str> =
                to_remove(&pod(), &observed).iter().map(|container| container.id.as_str()).collect();
            assert_eq!(removed, expect);
        }
    }

    #[test]
    fn the_container_that_demands_the_restart_goes_last() {
        let (ended, running) = (State::Exited, State::Running);
        check(&[("a", running, 0), ("b", ended, 42), ("i", ended, 0)], true, &["a0", "i0"]);
        check(&[("b", ended, 42)], true, &["b0"]);
        check(&[("a", running, 0), ("b", ended, 1)], false, &[]);
        check(&[], false, &[]);
        assert!(could_be(&pod()) && !could_be(&Pod::default()));
    }
}
