//! In which order the containers of a pod end (follows `kuberuntime_termination_order.go`): all are told at once, but a
//! sidecar lives on until those it serves and the sidecars after it are gone, as long as the grace period lasts.

use api::view::core::Pod;

use super::actions::Action;
use super::is_sidecar;
use crate::observe::{Container, Observed};

/// Ends everything that runs.
pub fn end_all(pod: &Pod, observed: &Observed, grace_seconds: i64) -> Vec<Action> {
    observed
        .running()
        .map(|container| Action::Kill {
            id: container.id.clone(),
            name: container.name.clone(),
            grace_seconds,
            reason: format!("Stopping container {}", container.name),
            after: before(pod, observed, &container.name),
        })
        .collect()
}

/// The running containers (by id) that are to be gone before the one of this name gets its signal.
fn before(pod: &Pod, observed: &Observed, name: &str) -> Vec<String> {
    let Some(place) = sidecars(pod).position(|sidecar| sidecar == name) else { return Vec::new() };
    let later: Vec<&str> = sidecars(pod).skip(place + 1).collect();
    let serves = |container: &&Container| {
        later.contains(&container.name.as_str())
            || pod.spec.containers.iter().any(|c| c.name == container.name)
    };
    observed.running().filter(serves).map(|container| container.id.clone()).collect()
}

fn sidecars(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.spec.init_containers.iter().filter(|spec| is_sidecar(spec)).map(|spec| spec.name.as_str())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::observe::State;
    use crate::pod::testing;

    #[test]
    fn sidecars_end_after_those_they_serve_the_last_one_first() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}]}}))
        .expect("a pod");
        let running = ["a", "s", "t"].map(|name| testing::container(name, State::Running, 0, 0));
        let ended = testing::container("b", State::Exited, 0, 0);
        let observed =
            Observed { containers: running.into_iter().chain([ended]).collect(), ..Default::default() };
        let order: Vec<(String, Vec<String>)> = end_all(&pod, &observed, 30)
            .into_iter()
            .filter_map(|action| match action {
                Action::Kill { id, after, .. } => Some((id, after)),
                _ => None,
            })
            .collect();
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let expect = [("a0", ids(&[])), ("s0", ids(&["a0", "t0"])), ("t0", ids(&["a0"]))];
        assert_eq!(order, expect.map(|(id, after)| (id.to_owned(), after)));
    }
}
