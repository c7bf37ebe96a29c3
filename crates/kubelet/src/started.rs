//! How many pods and containers were started, and how many could not be (follows the kubelet's metrics
//! `started_pods_total` and those beside it).

use api::view::core::{Container, Pod};
use client::metrics::Number;

#[derive(Debug)]
pub struct Started {
    pods: Number,
    pod_errors: Number,
    user_namespaced_pods: Number,
    user_namespaced_pod_errors: Number,
    containers: Number,
    container_errors: Number,
}

impl Default for Started {
    fn default() -> Self {
        // Without labels there is a series from the beginning.
        let total = |name, help| {
            let number = Number::counter(name, help);
            number.add("", 0.0);
            number
        };
        Started {
            pods: total("kubelet_started_pods_total", "Pods that were started."),
            pod_errors: total("kubelet_started_pods_errors_total", "Pods that could not be started."),
            user_namespaced_pods: total(
                "kubelet_started_user_namespaced_pods_total",
                "Pods with users of their own that were started.",
            ),
            user_namespaced_pod_errors: total(
                "kubelet_started_user_namespaced_pods_errors_total",
                "Pods with users of their own that could not be started.",
            ),
            containers: Number::counter("kubelet_started_containers_total", "Containers that were started."),
            container_errors: Number::counter(
                "kubelet_started_containers_errors_total",
                "Containers that could not be started.",
            ),
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

    pub fn write(&self, text: &mut String) {
        let Started { pods, pod_errors, user_namespaced_pods, user_namespaced_pod_errors, .. } = self;
        for number in [pods, pod_errors, user_namespaced_pods, user_namespaced_pod_errors] {
            number.write(text);
        }
        self.containers.write(text);
        self.container_errors.write(text);
    }
}

fn has_own_users(pod: &Pod) -> bool {
    pod.spec.host_users == Some(false)
}

fn kind(pod: &Pod, container: &Container) -> &'static str {
    let is_in = |list: &[Container]| list.iter().any(|known| known.name == container.name);
    if is_in(&pod.spec.init_containers) {
        "init_container"
    } else if is_in(&pod.spec.ephemeral_containers) {
        "ephemeral_container"
    } else {
        "container"
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn starts_are_counted_by_the_sort_of_container() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"hostUsers": false,
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
}
