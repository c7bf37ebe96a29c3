//! How many pods and containers were started, how many could not be, and how containers ended (follows the kubelet's
//! metrics `started_pods_total` and those beside it).

use api::view::core::{Container, ContainerStatus, Pod, PodStatus};
use client::metrics::Number;

const INIT_CONTAINER: &str = "init_container";
const CONTAINER: &str = "container";
const EPHEMERAL_CONTAINER: &str = "ephemeral_container";

#[derive(Debug)]
pub struct Started {
    pods: Number,
    pod_errors: Number,
    user_namespaced_pods: Number,
    user_namespaced_pod_errors: Number,
    containers: Number,
    container_errors: Number,
    terminated: Number,
}

impl Default for Started {
    fn default() -> Self {
        Started {
            pods: Number::total("kubelet_started_pods_total", "Pods that were started."),
            pod_errors: Number::total("kubelet_started_pods_errors_total", "Pods that could not be started."),
            user_namespaced_pods: Number::total(
                "kubelet_started_user_namespaced_pods_total",
                "Pods with users of their own that were started.",
            ),
            user_namespaced_pod_errors: Number::total(
                "kubelet_started_user_namespaced_pods_errors_total",
                "Pods with users of their own that could not be started.",
            ),
            containers: Number::counter("kubelet_started_containers_total", "Containers that were started."),
            container_errors: Number::counter(
                "kubelet_started_containers_errors_total",
                "Containers that could not be started.",
            ),
            terminated: Number::counter("kubelet_terminated_containers_total", "Containers that ended."),
        }
    }
}

impl Started {
    pub fn pod(&self, pod: &Pod) {
        self.pods.add("", 1.0);
        if has_own_users(pod) {
            self.user_namespaced_pods.add("", 1.0);
        }
    }

    pub fn pod_failed(&self, pod: &Pod) {
        self.pod_errors.add("", 1.0);
        if has_own_users(pod) {
            self.user_namespaced_pod_errors.add("", 1.0);
        }
    }

    pub fn container(&self, pod: &Pod, container: &Container) {
        self.containers.add(&format!("container_type={:?}", kind(pod, container)), 1.0);
    }

    /// What keeps a container from starting is often about the pod's users.
    pub fn container_failed(&self, pod: &Pod, container: &Container, code: &str) {
        let labels = format!("code={code:?},container_type={:?}", kind(pod, container));
        self.container_errors.add(&labels, 1.0);
        if has_own_users(pod) {
            self.user_namespaced_pod_errors.add("", 1.0);
        }
    }

    /// Counts the containers that one status tells to have ended and the one before did not.
    pub fn terminated(&self, before: &PodStatus, after: &PodStatus) {
        for ((kind, before), (_, after)) in statuses(before).into_iter().zip(statuses(after)) {
            let had_ended = |name: &str| {
                let known = before.iter().find(|known| known.name == name);
                known.is_some_and(|known| known.state.terminated.is_some())
            };
            for status in after.iter().filter(|status| !had_ended(&status.name)) {
                let Some(end) = &status.state.terminated else { continue };
                let (code, reason) = (end.exit_code, &end.reason);
                let labels = format!("container_type={kind:?},exit_code=\"{code}\",reason={reason:?}");
                self.terminated.add(&labels, 1.0);
            }
        }
    }

    pub fn write(&self, text: &mut String) {
        let Started { pods, pod_errors, user_namespaced_pods, user_namespaced_pod_errors, .. } = self;
        for number in [pods, pod_errors, user_namespaced_pods, user_namespaced_pod_errors] {
            number.write(text);
        }
        for number in [&self.containers, &self.container_errors, &self.terminated] {
            number.write(text);
        }
    }
}

fn statuses(of: &PodStatus) -> [(&'static str, &[ContainerStatus]); 3] {
    [
        (INIT_CONTAINER, &of.init_container_statuses),
        (CONTAINER, &of.container_statuses),
        (EPHEMERAL_CONTAINER, &of.ephemeral_container_statuses),
    ]
}

fn has_own_users(pod: &Pod) -> bool {
    pod.spec.host_users == Some(false)
}

fn kind(pod: &Pod, container: &Container) -> &'static str {
    let is_in = |list: &[Container]| list.iter().any(|known| known.name == container.name);
    if is_in(&pod.spec.init_containers) {
        INIT_CONTAINER
    } else if is_in(&pod.spec.ephemeral_containers) {
        EPHEMERAL_CONTAINER
    } else {
        CONTAINER
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn starts_are_counted_by_the_sort_of_container() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"hostUsers": false,
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}}))
        .expect("a pod");
        let started = Started::default();
        started.pod(&pod);
        started.container(&pod, &pod.spec.init_containers[0]);
        started.container_failed(&pod, &pod.spec.containers[0], "ErrImagePull");
        let mut text = String::new();
        started.write(&mut text);
        for line in [
            "kubelet_started_pods_total 1",
            "kubelet_started_pods_errors_total 0",
            "kubelet_started_user_namespaced_pods_total 1",
            "kubelet_started_user_namespaced_pods_errors_total 1",
            r#"kubelet_started_containers_total{container_type="init_container"} 1"#,
            r#"kubelet_started_containers_errors_total{code="ErrImagePull",container_type="container"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn an_end_is_counted_when_it_is_first_told() {
        let status = |state: &str| -> PodStatus {
            let ended = json!({"terminated": {"exitCode": 139, "reason": "Error"}});
            let state = if state == "terminated" { ended } else { json!({"running": {}}) };
            apimachinery::from_value(json!({
                "initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
                "containerStatuses": [{"name": "a", "state": state}]
            }))
            .expect("a status")
        };
        let started = Started::default();
        let told = ["running", "terminated", "terminated", "running", "terminated"].map(status);
        started.terminated(&PodStatus::default(), &told[0]);
        told.windows(2).for_each(|pair| started.terminated(&pair[0], &pair[1]));
        let mut text = String::new();
        started.write(&mut text);
        for line in [
            r#"kubelet_terminated_containers_total{container_type="init_container",exit_code="0",reason="Completed"} 1"#,
            r#"kubelet_terminated_containers_total{container_type="container",exit_code="139",reason="Error"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
