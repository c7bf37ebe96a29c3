//! How pods come and go: grace, back-off, a rollout that cannot succeed, many at once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Cluster, Kubectl, Runtime};

/// Pods that are wanted at once.
const MANY: usize = 30;
/// What a pod gets to end that does not say (upstream: `DefaultTerminationGracePeriodSeconds`); who takes less did not
/// wait for it.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Tells what it was told, and needs a second to end.
const POLITE: &str = "apiVersion: v1
kind: Pod
metadata:
  name: polite
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: test.local/busybox:1
    command: [sh, -c, \"trap 'echo told > /seen/told; sleep 1; exit 0' TERM; echo listening; while :; do sleep 0.1; done\"]
    volumeMounts:
    - {name: seen, mountPath: /seen}
  volumes:
  - name: seen
    hostPath: {path: SEEN, type: DirectoryOrCreate}
";

#[test]
fn pods_come_and_go() -> anyhow::Result<()> {
    pods_come_and_go_on(Runtime::BuiltIn)
}

#[test]
fn pods_come_and_go_with_containerd() -> anyhow::Result<()> {
    pods_come_and_go_on(Runtime::Containerd)
}

fn pods_come_and_go_on(runtime: Runtime) -> anyhow::Result<()> {
    let cluster = Cluster::start_on(runtime, &["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    a_container_is_told_before_it_is_ended(&cluster, &kubectl)?;
    one_that_does_not_listen_is_killed_after_its_grace(&kubectl)?;
    a_rollout_that_cannot_succeed_leaves_the_old_pods(&kubectl)?;
    many_at_once(&kubectl)?;
    cluster.finish()
}

fn a_container_is_told_before_it_is_ended(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let seen = cluster.scratch()?.join("seen");
    kubectl.apply(&POLITE.replace("SEEN", &seen.display().to_string()))?;
    kubectl.wait("pod/polite", "condition=Ready")?;
    let listens = || Ok(kubectl.run(&["logs", "polite"])?.contains("listening"));
    cluster.machine().until("the container listens", listens)?;
    let started = Instant::now();
    kubectl.run(&["delete", "pod/polite"])?;
    let took = started.elapsed();
    ensure!(std::fs::read_to_string(seen.join("told"))? == "told\n");
    ensure!(took > Duration::from_secs(1) && took < DEFAULT_GRACE, "it took {took:?}");
    Ok(())
}

fn one_that_does_not_listen_is_killed_after_its_grace(kubectl: &Kubectl) -> anyhow::Result<()> {
    // A shell as process 1 that ignores SIGTERM.
    let script = "trap '' TERM; while :; do sleep 1; done";
    kubectl.run(&["run", "deaf", "--image=test.local/busybox:1", "--", "sh", "-c", script])?;
    kubectl.wait("pod/deaf", "condition=Ready")?;
    let started = Instant::now();
    kubectl.run(&["delete", "pod/deaf", "--grace-period=2"])?;
    let took = started.elapsed();
    ensure!(took >= Duration::from_secs(2) && took < DEFAULT_GRACE, "it took {took:?}");
    Ok(())
}

fn a_rollout_that_cannot_succeed_leaves_the_old_pods(kubectl: &Kubectl) -> anyhow::Result<()> {
    let args = ["create", "deployment", "steady", "--image=test.local/busybox:1", "--replicas=2", "--"];
    kubectl.run(&[&args[..], &["sleep", "100000"]].concat())?;
    kubectl.rolled_out("steady")?;
    kubectl.run(&["patch", "deployment/steady", "--patch", r#"{"spec":{"progressDeadlineSeconds":3}}"#])?;
    kubectl.run(&["set", "image", "deployment/steady", "busybox=127.0.0.1:1/nowhere:1"])?;
    let reason = ".status.conditions[?(@.type==\"Progressing\")].reason";
    kubectl.wait_for_field("deployment/steady", reason, "ProgressDeadlineExceeded")?;
    let said =
        kubectl.attempt(&["rollout", "status", "deployment/steady", "--timeout=30s"], "")?.failure()?;
    ensure!(said.contains("exceeded its progress deadline"), "{said}");
    let available = kubectl.field("deployment/steady", ".status.availableReplicas")?;
    ensure!(available == "2", "{available} of the old pods are left");
    kubectl.run(&["rollout", "undo", "deployment/steady"])?;
    kubectl.rolled_out("steady")?;
    kubectl.run(&["delete", "deployment/steady", "--cascade=foreground"])?;
    let left = kubectl.run(&["get", "replicasets", "-l", "app=steady", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

fn many_at_once(kubectl: &Kubectl) -> anyhow::Result<()> {
    let replicas = format!("--replicas={MANY}");
    let args = ["create", "deployment", "many", "--image=test.local/busybox:1", &replicas, "--"];
    kubectl.run(&[&args[..], &["sleep", "100000"]].concat())?;
    kubectl.rolled_out("many")?;
    let addresses =
        kubectl.run(&["get", "pods", "-l", "app=many", "-o", "jsonpath={.items[*].status.podIP}"])?;
    let different: std::collections::BTreeSet<&str> = addresses.split_whitespace().collect();
    ensure!(different.len() == MANY, "{MANY} pods have {} addresses", different.len());
    kubectl.run(&["delete", "deployment/many"])?;
    kubectl.run(&["delete", "pods", "-l", "app=many", "--force", "--grace-period=0"])?;
    Ok(())
}
