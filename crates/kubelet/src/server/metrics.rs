//! Figures in the text form of Prometheus, under upstream's names. Pure.

mod cadvisor;
mod kubelet;
mod resource;

pub use cadvisor::{Machine, cadvisor};
pub use kubelet::{Counts, kubelet};
pub use resource::resource;

/// Labels as they stand between the braces.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    pairs.join(",")
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use runtime::cri;

    use super::*;
    use crate::stats::cgroup::{Cgroup, Cpu, Told};
    use crate::stats::node::{Interface, NodeReading};
    use crate::stats::{ContainerReading, Filesystem, PodReading, Reading};

    fn reading() -> Reading {
        let value = |value| Some(cri::UInt64Value { value });
        let cpu = Some(cri::CpuUsage { usage_core_nano_seconds: value(1_500_000_000), ..Default::default() });
        let memory = Some(cri::MemoryUsage { working_set_bytes: value(4096), ..Default::default() });
        let container = ContainerReading {
            id: "c1".to_owned(),
            name: "main".to_owned(),
            image: "busybox:1".to_owned(),
            started_at: Timestamp::from_second(100).expect("a time"),
            usage: cri::ContainerStats { cpu, memory, ..Default::default() },
            ..ContainerReading::default()
        };
        let usage = cri::LinuxPodSandboxStats { cpu, memory, ..Default::default() };
        let pod = PodReading {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            usage,
            containers: vec![container],
            ..PodReading::default()
        };
        Reading {
            at: Timestamp::from_second(200).expect("a time"),
            node: NodeReading { cpu_nanos: 2_000_000_000, ..NodeReading::default() },
            node_rate: None,
            node_fs: Filesystem::default(),
            image_fs: Filesystem::default(),
            pods: vec![pod],
        }
    }

    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn resource_metrics_tell_when_they_were_read() {
        let text = resource(&reading());
        check(&text, "node_cpu_usage_seconds_total 2 200000");
        check(&text, "container_start_time_seconds{container=\"main\",namespace=\"shop\",pod=\"web\"} 100");
        check(
            &text,
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"shop\",pod=\"web\"} 1.5 200000",
        );
        check(&text, "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 4096 200000");
        check(&text, "resource_scrape_error 0");
    }

    #[test]
    fn cadvisor_metrics_carry_cgroup_image_and_pod_and_what_the_kernel_tells() {
        let link = Interface { name: "eth0".to_owned(), rx_packets: 3, ..Interface::default() };
        let of_pod = Cgroup { path: "/k/pod7".to_owned(), interfaces: vec![link], ..Cgroup::default() };
        let mut of_main = Cgroup { path: "/k/pod7/c1".to_owned(), ..Cgroup::default() };
        of_main.cpu = Cpu { throttled_nanos: Some(500_000_000), quota: Some(1000), ..Cpu::default() };
        of_main.memory.page_faults = Some(9);
        let mut told = Told { device: "/dev/sda".to_owned(), ..Told::default() };
        told.pods.insert(String::new(), of_pod);
        told.containers.insert("c1".to_owned(), of_main);
        let machine = Machine { boot_id: "b".to_owned(), cores: 4, sockets: 2, ..Machine::default() };
        let text = cadvisor(&reading(), &told, &machine);
        let main =
            r#"container="main",id="/k/pod7/c1",image="busybox:1",name="c1",namespace="shop",pod="web""#;
        let check =
            |name: &str, labels: &str, value: &str| check(&text, &format!("{name}{{{labels}}} {value}"));
        check("container_memory_working_set_bytes", main, "4096 200000");
        check("container_cpu_usage_seconds_total", &format!(r#"{main},cpu="total""#), "1.5 200000");
        check("container_cpu_cfs_throttled_seconds_total", main, "0.5 200000");
        check("container_spec_cpu_quota", main, "1000");
        let fault = r#"failure_type="pgfault",scope="hierarchy""#;
        check("container_memory_failures_total", &format!("{main},{fault}"), "9 200000");
        let eth0 = r#"id="/k/pod7",namespace="shop",pod="web",interface="eth0""#;
        check("container_network_receive_packets_total", eth0, "3 200000");
        check("container_fs_limit_bytes", r#"id="/",device="/dev/sda""#, "0 200000");
        check("machine_cpu_physical_cores", r#"boot_id="b",machine_id="",system_uuid="""#, "4");
        check("machine_cpu_sockets", r#"boot_id="b",machine_id="",system_uuid="""#, "2");
        check("machine_memory_bytes", r#"boot_id="b",machine_id="",system_uuid="""#, "0");
    }

    #[test]
    fn what_cannot_be_read_is_said_once() {
        let pending_resizes = [("deferred".to_owned(), 1)].into();
        let counts = Counts { running_pods: 2, desired_pods: [3, 1], pending_resizes, ..Counts::default() };
        let text = kubelet("n1", "v1.36.0", &counts, &[]);
        check(&text, "kubelet_running_pods 2");
        check(&text, "kubelet_pod_pending_resizes{reason=\"deferred\"} 1");
        check(&text, "kubelet_pod_in_progress_resizes 0");
        check(&text, "kubelet_node_name{node=\"n1\"} 1");
        check(&text, "kubelet_desired_pods{static=\"true\"} 1");
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let distinct: std::collections::BTreeSet<&&str> = types.iter().collect();
        assert_eq!(distinct.len(), types.len());
    }
}
