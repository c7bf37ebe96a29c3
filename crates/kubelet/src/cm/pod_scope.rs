//! What a pod needs as a whole where all its containers are to be near each other (follows `podGuaranteedCPUs` and its
//! like). Pure.

use api::view::core::{Container, Pod};

use crate::pod::is_sidecar;

/// The most that containers have at one time, given what each of them has: init containers run one by one beside the
/// sidecars before them, the others all together.
pub fn needed_at_once(pod: &Pod, of: impl Fn(&Container) -> u64) -> u64 {
    let (mut sidecars, mut starting) = (0, 0);
    for container in &pod.spec.init_containers {
        if is_sidecar(container) {
            sidecars += of(container);
        } else {
            starting = starting.max(sidecars + of(container));
        }
    }
    let running = sidecars + pod.spec.containers.iter().map(of).sum::<u64>();
    running.max(starting)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::resources::whole;

    #[test]
    fn the_most_is_needed_by_an_init_container_or_by_those_that_stay() {
        let container = |name: &str, cpu: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let check = |plain: &str, expect| {
            let pod: Pod = apimachinery::from_value(json!({"spec": {
                "initContainers": [container("s", "1", Some("Always")), container("i", plain, None)],
                "containers": [container("a", "2", None), container("b", "1", None)]}}))
            .expect("a pod");
            let cpus = |spec: &Container| u64::try_from(whole(&spec.resources.requests, "cpu")).unwrap_or(0);
            assert_eq!(needed_at_once(&pod, cpus), expect);
        };
        check("2", 4);
        check("6", 7);
    }
}
