//! What a kubelet owes its pods: init containers, configuration, volumes, tokens, probes, limits, restarts.

use anyhow::ensure;
use e2e::{Cluster, Kubectl, Runtime};

const PODS: &str = include_str!("manifests/probes.yaml");

#[test]
fn probes_and_limits() -> anyhow::Result<()> {
    probes_and_limits_on(Runtime::BuiltIn)
}

#[test]
fn probes_and_limits_with_containerd() -> anyhow::Result<()> {
    probes_and_limits_on(Runtime::Containerd)
}

fn probes_and_limits_on(runtime: Runtime) -> anyhow::Result<()> {
    let cluster = Cluster::start_on(runtime, &["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    kubectl.apply(PODS)?;
    configuration_reaches_the_container(&kubectl)?;
    limits_are_those_of_the_cgroup(&kubectl)?;
    the_projected_token_is_accepted(&kubectl)?;
    a_failed_liveness_probe_restarts(&kubectl)?;
    only_ready_pods_are_endpoints(&cluster, &kubectl)?;
    memory_beyond_the_limit_ends_the_container(&kubectl)?;
    a_crashing_container_backs_off(&kubectl)?;
    kubectl.run(&["delete", "pods", "--all"])?;
    cluster.finish()
}

fn in_configured(kubectl: &Kubectl, script: &str) -> anyhow::Result<String> {
    kubectl.run(&["exec", "configured", "-c", "main", "--", "sh", "-c", script])
}

fn configuration_reaches_the_container(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait("pod/configured", "condition=Ready")?;
    let address = kubectl.field("pod/configured", ".status.podIP")?;
    let said = in_configured(
        kubectl,
        "echo $GREETING $PASSWORD $BOTH; cat /etc/settings/file.conf /etc/keys/password",
    )?;
    ensure!(said == format!("hello hunter2 hello {address}\nline one\nhunter2"), "{said}");
    let shared = in_configured(kubectl, "cat /shared/init /shared/side")?;
    ensure!(shared == "from-init\nand-second\nfrom-side\n", "{shared}");
    let first = kubectl.run(&["logs", "configured", "-c", "second"])?;
    ensure!(first == "from-init\n", "{first}");
    let name = in_configured(kubectl, "hostname; nslookup kubernetes.default | grep -c 'Address.*10[.]'")?;
    ensure!(name.starts_with("configured\n"), "{name}");
    Ok(())
}

fn limits_are_those_of_the_cgroup(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script =
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true";
    let memory = in_configured(kubectl, script)?;
    ensure!(memory.trim() == (32 << 20).to_string(), "the container sees a memory limit of {memory}");
    let class = kubectl.field("pod/configured", ".status.qosClass")?;
    ensure!(class == "Burstable", "{class}");
    Ok(())
}

/// The container asks the API server with the token, authority and address it was given.
fn the_projected_token_is_accepted(kubectl: &Kubectl) -> anyhow::Result<()> {
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let files = in_configured(kubectl, &format!("cd {folder}; ls; cat namespace; head -1 ca.crt"))?;
    ensure!(files == "ca.crt\nnamespace\ntoken\ndefault-----BEGIN CERTIFICATE-----\n", "{files}");
    let token = in_configured(kubectl, &format!("cat {folder}/token"))?;
    // `--token` on top of an administrator's certificate would not be asked: only the token may speak.
    let bare = ["--server", &kubectl.server()?, "--insecure-skip-tls-verify", "--token", token.trim()];
    let ask = ["create", "--validate=false", "-o", "yaml", "-f", "-"];
    let review = "kind: SelfSubjectReview\napiVersion: authentication.k8s.io/v1\n";
    let who = kubectl.with_kubeconfig("/dev/null").attempt(&[&bare[..], &ask].concat(), review)?.success()?;
    ensure!(who.contains("system:serviceaccount:default:default"), "{who}");
    Ok(())
}

fn a_failed_liveness_probe_restarts(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait("pod/ailing", "condition=Ready")?;
    kubectl.run(&["exec", "ailing", "--", "rm", "/tmp/healthy"])?;
    kubectl.wait_for_field("pod/ailing", ".status.containerStatuses[0].restartCount", "1")?;
    kubectl.wait("pod/ailing", "condition=Ready")?;
    let described = kubectl.described("pod/ailing", "failed liveness probe, will be restarted")?;
    ensure!(described.contains("Liveness probe failed") && described.contains("Unhealthy"), "{described}");
    Ok(())
}

fn only_ready_pods_are_endpoints(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait_for_field("pod/gated", ".status.phase", "Running")?;
    let ready = "jsonpath={.items[0].endpoints[0].conditions.ready}";
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=gated", "-o", ready];
    let listed = || Ok(kubectl.run(&slices).is_ok_and(|ready| ready == "false"));
    cluster.machine().until("the pod is an endpoint that is not ready", listed)?;
    let ask = "timeout 3 wget -q -O - http://gated/";
    ensure!(in_configured(kubectl, ask).is_err(), "a pod that is not ready was served from");
    kubectl.run(&["exec", "gated", "--", "touch", "/tmp/ready"])?;
    kubectl.wait("pod/gated", "condition=Ready")?;
    let answer = in_configured(kubectl, &format!("until {ask}; do sleep 0.1; done"))?;
    ensure!(answer == "served\n", "{answer}");
    kubectl.run(&["exec", "gated", "--", "rm", "/tmp/ready"])?;
    kubectl.wait("pod/gated", "condition=Ready=false")?;
    in_configured(kubectl, &format!("while {ask}; do sleep 0.1; done"))?;
    Ok(())
}

fn memory_beyond_the_limit_ends_the_container(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.wait_for_field("pod/greedy", ".status.phase", "Failed")?;
    let state = ".status.containerStatuses[0].state.terminated";
    let reason = kubectl.field("pod/greedy", &format!("{state}.reason"))?;
    let code = kubectl.field("pod/greedy", &format!("{state}.exitCode"))?;
    ensure!((reason.as_str(), code.as_str()) == ("OOMKilled", "137"), "{reason} {code}");
    Ok(())
}

fn a_crashing_container_backs_off(kubectl: &Kubectl) -> anyhow::Result<()> {
    let status = ".status.containerStatuses[0]";
    kubectl.wait_for_field("pod/crashing", &format!("{status}.state.waiting.reason"), "CrashLoopBackOff")?;
    let code = kubectl.field("pod/crashing", &format!("{status}.lastState.terminated.exitCode"))?;
    let message = kubectl.field("pod/crashing", &format!("{status}.lastState.terminated.message"))?;
    ensure!(code == "3" && message == "last words\n", "{code} {message:?}");
    let previous = kubectl.run(&["logs", "crashing", "--previous"])?;
    ensure!(previous == "last words\n", "{previous}");
    Ok(())
}
