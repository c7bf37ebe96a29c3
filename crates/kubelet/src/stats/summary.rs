//! A reading as `/stats/summary` shows it (follows `stats/v1alpha1`). Pure.

use apimachinery::time::format_time;
use apimachinery::{Map, Value, json};
use jiff::Timestamp;
use runtime::cri;

use super::node::{Interface, NodeReading};
use super::volumes::{ByPod, Volume};
use super::{ContainerReading, Filesystem, PodReading, Reading, number};

pub fn summary(node_name: &str, reading: &Reading, volumes: &ByPod) -> Value {
    let none = Vec::new();
    let of = |pod: &PodReading| pod_stats(pod, reading, volumes.get(&pod.uid).unwrap_or(&none));
    json!({"node": node_stats(node_name, reading), "pods": reading.pods.iter().map(of).collect::<Vec<_>>()})
}

/// For who asks for no more (upstream: `GetCPUAndMemoryStats`).
pub fn keep_cpu_and_memory(summary: &mut Value) {
    const KEPT: [&str; 9] = [
        "nodeName",
        "systemContainers",
        "startTime",
        "cpu",
        "memory",
        "swap",
        "podRef",
        "containers",
        "name",
    ];
    let keep = |of: &mut Value| {
        if let Value::Object(fields) = of {
            fields.retain(|name, _| KEPT.contains(&name.as_str()));
        }
    };
    let each = |of: &mut Value, keep: &dyn Fn(&mut Value)| {
        of.as_array_mut().into_iter().flatten().for_each(keep);
    };
    keep(&mut summary["node"]);
    each(&mut summary["pods"], &|pod| {
        keep(pod);
        each(&mut pod["containers"], &keep);
    });
}

/// Leaves out what is not known.
fn fields<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let known = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(known.collect::<Map>())
}

fn at(time: Timestamp) -> Option<Value> {
    Some(format_time(time).into())
}

fn node_stats(node_name: &str, reading: &Reading) -> Value {
    let NodeReading { memory, pressure: [cpu, memory_pressure, io], .. } = &reading.node;
    let now = || at(reading.at);
    fields([
        ("nodeName", Some(node_name.into())),
        ("startTime", at(reading.node.booted_at)),
        (
            "cpu",
            Some(fields([
                ("time", now()),
                ("usageNanoCores", reading.node_rate.map(Value::from)),
                ("usageCoreNanoSeconds", Some(reading.node.cpu_nanos.into())),
                ("psi", cpu.as_ref().map(psi)),
            ])),
        ),
        (
            "memory",
            Some(fields([
                ("time", now()),
                ("availableBytes", Some(memory.available.into())),
                ("usageBytes", Some(memory.usage.into())),
                ("workingSetBytes", Some(memory.working_set.into())),
                ("rssBytes", Some(memory.rss.into())),
                ("pageFaults", Some(memory.page_faults.into())),
                ("majorPageFaults", Some(memory.major_page_faults.into())),
                ("psi", memory_pressure.as_ref().map(psi)),
            ])),
        ),
        ("io", io_stats(io.as_ref(), reading.at)),
        ("network", Some(network(reading.at, &reading.node.interfaces))),
        ("fs", Some(fs_stats(reading.at, &reading.node_fs))),
        (
            "runtime",
            Some(fields([
                ("imageFs", Some(fs_stats(reading.at, &reading.image_fs))),
                ("containerFs", Some(fs_stats(reading.at, &reading.image_fs))),
            ])),
        ),
        (
            "rlimit",
            Some(fields([
                ("time", now()),
                ("maxpid", reading.node.processes_max.map(Value::from)),
                ("curproc", reading.node.processes.map(Value::from)),
            ])),
        ),
        (
            "swap",
            Some(fields([
                ("time", now()),
                ("swapAvailableBytes", Some(memory.swap_available.into())),
                ("swapUsageBytes", Some(memory.swap_usage.into())),
            ])),
        ),
    ])
}

fn psi(stats: &cri::PsiStats) -> Value {
    let data = |data: &Option<cri::PsiData>| {
        let cri::PsiData { total, avg10, avg60, avg300 } = data.unwrap_or_default();
        json!({"total": total, "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    json!({"full": data(&stats.full), "some": data(&stats.some)})
}

fn io_stats(psi_stats: Option<&cri::PsiStats>, time: Timestamp) -> Option<Value> {
    psi_stats.map(|stats| fields([("time", at(time)), ("psi", Some(psi(stats)))]))
}

/// The interface by which others are reached stands out (upstream: `eth0`, or the first).
fn network(time: Timestamp, interfaces: &[Interface]) -> Value {
    let stats = |of: &Interface| {
        json!({"name": of.name, "rxBytes": of.rx_bytes, "rxErrors": of.rx_errors,
            "txBytes": of.tx_bytes, "txErrors": of.tx_errors})
    };
    let default = interfaces.iter().find(|of| of.name == "eth0").or(interfaces.first());
    let mut shown = default.map_or(json!({"name": ""}), stats);
    shown["time"] = format_time(time).into();
    shown["interfaces"] = interfaces.iter().map(stats).collect();
    shown
}

fn fs_stats(time: Timestamp, fs: &Filesystem) -> Value {
    json!({"time": format_time(time), "availableBytes": fs.available_bytes, "capacityBytes": fs.capacity_bytes,
        "usedBytes": fs.used_bytes, "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": fs.inodes_used})
}

fn pod_stats(pod: &PodReading, reading: &Reading, volumes: &[Volume]) -> Value {
    let usage = &pod.usage;
    let interfaces = usage.network.as_ref().map(|network| {
        let all = network.default_interface.iter().chain(&network.interfaces);
        all.map(interface).collect::<Vec<_>>()
    });
    let volume = |volume: &Volume| {
        let mut shown = fs_stats(reading.at, &volume.fs);
        shown["name"] = volume.name.as_str().into();
        if let Some(claim) = &volume.claim {
            shown["pvcRef"] = json!({"name": claim, "namespace": pod.namespace});
        }
        if let Some(abnormal) = volume.is_abnormal {
            shown["volumeHealthStats"] = json!({"abnormal": abnormal});
        }
        shown
    };
    let processes = usage.process.as_ref().and_then(|process| number(process.process_count.as_ref()));
    fields([
        ("podRef", Some(json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}))),
        ("startTime", at(pod.started_at)),
        ("containers", Some(pod.containers.iter().map(|of| container_stats(of, reading)).collect())),
        ("cpu", usage.cpu.as_ref().map(|cpu| cpu_stats(cpu, pod.cpu_rate, reading.at))),
        ("memory", usage.memory.as_ref().map(|memory| memory_stats(memory, reading.at))),
        ("io", usage.io.as_ref().and_then(|io| io_stats(io.psi.as_ref(), reading.at))),
        ("network", interfaces.map(|interfaces| network(reading.at, &interfaces))),
        ("volume", (!volumes.is_empty()).then(|| volumes.iter().map(volume).collect())),
        ("ephemeral-storage", Some(fs_stats(reading.at, &ephemeral_storage(pod, reading, volumes)))),
        ("process_stats", processes.map(|count| json!({"process_count": count}))),
        ("swap", swap_of_pod(pod, reading.at)),
    ])
}

fn interface(of: &cri::NetworkInterfaceUsage) -> Interface {
    let known = |value: &Option<cri::UInt64Value>| number(value.as_ref()).unwrap_or_default();
    Interface {
        name: of.name.clone(),
        rx_bytes: known(&of.rx_bytes),
        rx_errors: known(&of.rx_errors),
        tx_bytes: known(&of.tx_bytes),
        tx_errors: known(&of.tx_errors),
        ..Interface::default()
    }
}

/// What the pod's containers wrote beside their volumes, and its volumes that are no claims.
fn ephemeral_storage(pod: &PodReading, reading: &Reading, volumes: &[Volume]) -> Filesystem {
    let mut sum = Filesystem { used_bytes: 0, inodes_used: 0, ..reading.node_fs };
    let mut add = |bytes: u64, inodes: u64| {
        sum.used_bytes = sum.used_bytes.saturating_add(bytes);
        sum.inodes_used = sum.inodes_used.saturating_add(inodes);
    };
    volumes.iter().filter(|v| v.claim.is_none()).for_each(|v| add(v.fs.used_bytes, v.fs.inodes_used));
    for layer in pod.containers.iter().filter_map(|container| container.usage.writable_layer.as_ref()) {
        let known = |value: &Option<cri::UInt64Value>| number(value.as_ref()).unwrap_or_default();
        add(known(&layer.used_bytes), known(&layer.inodes_used));
    }
    sum
}

fn swap_of_pod(pod: &PodReading, time: Timestamp) -> Option<Value> {
    let used: Vec<u64> = pod.containers.iter().filter_map(ContainerReading::swap).collect();
    (!used.is_empty()).then(|| json!({"time": format_time(time), "swapUsageBytes": used.iter().sum::<u64>()}))
}

impl ContainerReading {
    /// Bytes swapped out.
    pub fn swap(&self) -> Option<u64> {
        number(self.usage.swap.as_ref()?.swap_usage_bytes.as_ref())
    }
}

fn container_stats(container: &ContainerReading, reading: &Reading) -> Value {
    let usage = &container.usage;
    let layer = usage.writable_layer.as_ref().map(|layer| {
        let used_bytes = number(layer.used_bytes.as_ref()).unwrap_or_default();
        let inodes_used = number(layer.inodes_used.as_ref()).unwrap_or_default();
        fs_stats(reading.at, &Filesystem { used_bytes, inodes_used, ..reading.image_fs })
    });
    let swap = container.swap();
    fields([
        ("name", Some(container.name.as_str().into())),
        ("startTime", at(container.started_at)),
        ("cpu", usage.cpu.as_ref().map(|cpu| cpu_stats(cpu, container.cpu_rate, reading.at))),
        ("memory", usage.memory.as_ref().map(|memory| memory_stats(memory, reading.at))),
        ("io", usage.io.as_ref().and_then(|io| io_stats(io.psi.as_ref(), reading.at))),
        ("rootfs", layer),
        ("swap", swap.map(|used| json!({"time": format_time(reading.at), "swapUsageBytes": used}))),
    ])
}

fn cpu_stats(cpu: &cri::CpuUsage, rate: Option<u64>, time: Timestamp) -> Value {
    fields([
        ("time", at(time)),
        ("usageNanoCores", rate.or(number(cpu.usage_nano_cores.as_ref())).map(Value::from)),
        ("usageCoreNanoSeconds", number(cpu.usage_core_nano_seconds.as_ref()).map(Value::from)),
        ("psi", cpu.psi.as_ref().map(psi)),
    ])
}

fn memory_stats(memory: &cri::MemoryUsage, time: Timestamp) -> Value {
    let known = |value: &Option<cri::UInt64Value>| number(value.as_ref()).map(Value::from);
    fields([
        ("time", at(time)),
        ("availableBytes", known(&memory.available_bytes)),
        ("usageBytes", known(&memory.usage_bytes)),
        ("workingSetBytes", known(&memory.working_set_bytes)),
        ("rssBytes", known(&memory.rss_bytes)),
        ("pageFaults", known(&memory.page_faults)),
        ("majorPageFaults", known(&memory.major_page_faults)),
        ("psi", memory.psi.as_ref().map(psi)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_cpu_and_memory_gets_no_more() {
        let of = |more: &str| {
            let mut value = json!({"cpu": {"usageNanoCores": 1}, "memory": {"rssBytes": 2}});
            value[more] = json!({});
            value
        };
        let mut pod = of("network");
        pod["containers"] = json!([of("rootfs")]);
        let mut summary = json!({"node": of("fs"), "pods": [pod]});
        keep_cpu_and_memory(&mut summary);
        for gone in ["/node/fs", "/pods/0/network", "/pods/0/containers/0/rootfs"] {
            assert!(summary.pointer(gone).is_none(), "{gone}");
        }
        for kept in ["/node/cpu", "/pods/0/memory", "/pods/0/containers/0/cpu"] {
            assert!(summary.pointer(kept).is_some(), "{kept}");
        }
    }
}
