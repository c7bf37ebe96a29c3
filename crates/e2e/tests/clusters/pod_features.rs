//! What fewer pods ask of their node: users, system call filters and CPUs of their own, other resources while they run,
//! rules for restarts.

use std::fs;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Kubectl};
use serde_json::json;

const PODS: &str = include_str!("manifests/pod_features.yaml");

/// The first CPU is the system's; of the memory a threshold of eviction keeps 100Mi.
const CONFIGURATION: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cpuManagerPolicy: static
memoryManagerPolicy: Static
topologyManagerPolicy: single-numa-node
reservedSystemCPUs: \"0\"
reservedMemory: [{numaNode: 0, limits: {memory: 100Mi}}]
";

#[test]
fn pods_ask_for_more_than_a_process() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let file = cluster.scratch()?.join("kubelet.yaml");
    fs::write(&file, CONFIGURATION)?;
    cluster.up(&["--kubelet-config", &file.display().to_string()])?;
    cluster.import("busybox-1")?;
    let profiles = cluster.data().join("kubelet/seccomp");
    fs::create_dir_all(&profiles)?;
    let forbidden = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": forbidden});
    fs::write(profiles.join("no-mkdir.json"), profile.to_string())?;
    let kubectl = cluster.kubectl()?;
    kubectl.apply(PODS)?;
    users_are_the_pods_own(&kubectl)?;
    a_container_has_a_cpu_and_memory_of_its_own(&cluster, &kubectl)?;
    resources_change_while_containers_run(&kubectl)?;
    all_containers_start_anew(&kubectl)?;
    let filtered = logs_of_succeeded(&kubectl, "filtered")?;
    ensure!(filtered.contains("Permission denied") && filtered.contains("Seccomp:\t2"), "{filtered}");
    let variables = logs_of_succeeded(&kubectl, "variables")?;
    ensure!(variables == "hello there\nsub/variables/file\n", "{variables}");
    kubectl.wait_for_field("pod/too-large", ".status.reason", "Evicted")?;
    volumes_go_when_their_pod_has_ended(&cluster, &kubectl, "too-large")?;
    a_runtime_that_is_not_there_runs_nothing(&cluster, &kubectl)?;
    the_nodes_logs_are_served(&kubectl)?;
    kubectl.run(&["delete", "pods", "--all"])?;
    cluster.finish()
}

fn in_pod(kubectl: &Kubectl, pod: &str, script: &str) -> anyhow::Result<String> {
    kubectl.run(&["exec", pod, "-c", "main", "--", "sh", "-c", script])
}

fn logs_of_succeeded(kubectl: &Kubectl, pod: &str) -> anyhow::Result<String> {
    kubectl.wait_for_field(&format!("pod/{pod}"), ".status.phase", "Succeeded")?;
    kubectl.run(&["logs", pod, "-c", "main"])
}

fn volumes_go_when_their_pod_has_ended(
    cluster: &Cluster,
    kubectl: &Kubectl,
    pod: &str,
) -> anyhow::Result<()> {
    let uid = kubectl.field(&format!("pod/{pod}"), ".metadata.uid")?;
    let files = cluster.data().join("kubelet/pods").join(uid);
    cluster.machine().until("its volumes are gone", || Ok(!files.join("volumes").exists()))?;
    ensure!(files.exists(), "{} has gone before its pod", files.display());
    Ok(())
}

/// Root of the pod is nobody of the node, and owns what it makes.
fn users_are_the_pods_own(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait("pod/own-users", "condition=Ready")?;
    let told = in_pod(kubectl, "own-users", "cat /proc/self/uid_map; stat -c %u /data/file; id -u")?;
    let numbers: Vec<u32> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [inside, outside, length, owner, user] = numbers[..] else { anyhow::bail!("{told}") };
    ensure!((inside, length, owner, user) == (0, 65536, 0, 0) && outside >= 65536, "{told}");
    Ok(())
}

fn a_container_has_a_cpu_and_memory_of_its_own(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait("pod/exclusive", "condition=Ready")?;
    let allowed = |of: &str| -> anyhow::Result<String> {
        let line = in_pod(kubectl, of, "grep Cpus_allowed_list /proc/self/status")?;
        Ok(line.split_whitespace().last().context("no list of CPUs")?.to_owned())
    };
    let own = allowed("exclusive")?;
    ensure!(own != "0" && own.parse::<u32>().is_ok(), "the container runs on {own}");
    kubectl.wait("pod/own-users", "condition=Ready")?;
    cluster.machine().until("others leave that CPU", || Ok(!allowed("own-users")?.contains(&own)))?;
    let memory = in_pod(kubectl, "exclusive", "grep Mems_allowed_list /proc/self/status")?;
    ensure!(memory.ends_with("\t0\n"), "{memory}");
    let state = fs::read_to_string(cluster.data().join("kubelet/memory_manager_state"))?;
    ensure!(state.contains(r#""numaAffinity":[0],"type":"memory","size":33554432"#), "{state}");
    let image = in_pod(kubectl, "exclusive", "ls /image/bin/busybox; touch /image/file 2>&1 || true")?;
    ensure!(image.starts_with("/image/bin/busybox\n") && image.contains("Read-only"), "{image}");
    Ok(())
}

fn resources_change_while_containers_run(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait("pod/resized", "condition=Ready")?;
    let resize = |name: &str, memory: &str| {
        let limits = json!({"memory": memory});
        let patch = json!({"spec": {"containers": [{"name": name, "resources": {"limits": limits}}]}});
        kubectl.run(&["patch", "pod", "resized", "--subresource", "resize", "-p", &patch.to_string()])
    };
    let limit =
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true";
    for (wanted, bytes) in [("96Mi", "100663296\n"), ("48Mi", "50331648\n")] {
        resize("main", wanted)?;
        let status = ".status.containerStatuses[?(@.name==\"main\")].resources.limits.memory";
        kubectl.wait_for_field("pod/resized", status, wanted)?;
        let told = in_pod(kubectl, "resized", limit)?;
        ensure!(told == bytes, "{wanted} is {told}");
    }
    resize("restarted", "96Mi")?;
    let restarts = |name: &str| format!(".status.containerStatuses[?(@.name==\"{name}\")].restartCount");
    kubectl.wait_for_field("pod/resized", &restarts("restarted"), "1")?;
    kubectl.wait("pod/resized", "condition=Ready")?;
    ensure!(kubectl.field("pod/resized", &restarts("main"))? == "0");
    let reason = kubectl.field("pod/resized", ".status.conditions[?(@.type==\"Ready\")].reason")?;
    ensure!(reason.is_empty(), "ready, with the reason {reason:?}");
    Ok(())
}

fn all_containers_start_anew(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait_for_field("pod/anew", ".status.phase", "Succeeded")?;
    for status in [".status.initContainerStatuses[0]", ".status.containerStatuses[1]"] {
        let restarts = kubectl.field("pod/anew", &format!("{status}.restartCount"))?;
        let last = kubectl.field("pod/anew", &format!("{status}.lastState.terminated.reason"))?;
        ensure!((restarts.as_str(), last.as_str()) == ("1", "RestartingAllContainers"), "{restarts} {last}");
    }
    Ok(())
}

fn a_runtime_that_is_not_there_runs_nothing(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let events =
        ["get", "events", "--field-selector", "involvedObject.name=misplaced", "-o", "jsonpath={..message}"];
    let why = "no runtime for \"elsewhere\" is configured";
    let told = || -> anyhow::Result<bool> { Ok(kubectl.run(&events)?.contains(why)) };
    cluster.machine().until("the pod is told of its missing runtime", told)?;
    ensure!(kubectl.field("pod/misplaced", ".status.phase")? == "Pending");
    Ok(())
}

fn the_nodes_logs_are_served(kubectl: &Kubectl) -> anyhow::Result<()> {
    let node = kubectl.field("nodes", ".items[0].metadata.name")?;
    let page = kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/logs/")])?;
    ensure!(page.contains("<pre>\n") && page.contains("</pre>"), "{page}");
    Ok(())
}
