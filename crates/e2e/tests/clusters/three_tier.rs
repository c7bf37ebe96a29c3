//! A three-tier application through its whole life: applied, scaled, updated and rolled back under load, a pod and
//! then the node's process killed, deleted.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Kubectl, Load, NODE_IP, Process};
use serde_json::Value;

const APPLICATION: &str = include_str!("manifests/three-tier.yaml");
const LEAVER: &str = include_str!("manifests/leaver.yaml");
const DEPLOYMENTS: [&str; 4] = ["redis-leader", "redis-follower", "api", "web"];
/// Requests that the load must at least have made for its result to mean something.
const REQUESTS_MIN: usize = 500;

#[test]
fn three_tier_application() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["web-1", "web-2", "api-1", "api-2", "redis-1", "busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    kubectl.apply(APPLICATION)?;
    for deployment in DEPLOYMENTS {
        kubectl.rolled_out(deployment)?;
    }
    let port: u16 = kubectl.field("service/web", ".spec.ports[0].nodePort")?.parse()?;
    cluster.until_served(port)?;
    all_tiers_work_together(&cluster, &kubectl, port)?;

    let load = Load::start(cluster.machine(), format!("{NODE_IP}:{port}").parse()?, &["/", "/api/hits"])?;
    let changed = change_everything(&cluster, &kubectl, port);
    let report = load.stop()?;
    changed?;
    report.all_answered(REQUESTS_MIN)?;

    the_process_is_killed_and_nobody_notices(&cluster, &kubectl, port)?;

    kubectl.attempt(&["delete", "-f", "-", "--wait"], APPLICATION)?.success()?;
    // Waits for those that are still on their way out.
    kubectl.run(&["delete", "pods", "--all"])?;
    cluster.machine().until("a deleted Service leaves its port", || Ok(cluster.get(port, "/").is_err()))?;
    cluster.finish()
}

fn all_tiers_work_together(cluster: &Cluster, kubectl: &Kubectl, port: u16) -> anyhow::Result<()> {
    let front = cluster.get(port, "/")?;
    ensure!(front.status == 200 && front.body.starts_with("web 1 on web-"), "{front:?}");
    let (first, second) = (hits(cluster, port)?, hits(cluster, port)?);
    ensure!(first["version"] == "1", "{first}");
    let count = |answer: &Value| answer["hits"].as_u64().context("a number");
    ensure!(count(&second)? == count(&first)? + 1, "{first} then {second}");

    // The leader confirms that both followers have it. It speaks of writes of the same connection only: without one it
    // counts followers that have just joined and have not been told anything yet.
    let confirm = "printf 'SET last yes\nWAIT 2 10000\n' | redis-cli";
    let confirmed = kubectl.run(&["exec", "deployment/redis-leader", "--", "sh", "-c", confirm])?;
    ensure!(confirmed.trim() == "OK\n2", "{confirmed}");
    let seen = kubectl.run(&["exec", "deployment/redis-follower", "--", "redis-cli", "GET", "hits"])?;
    ensure!(seen.trim().parse().ok() == second["hits"].as_u64(), "{seen}");

    // A headless Service is a name with an address for each pod.
    let name = "redis-followers.default.svc.cluster.local";
    let answer = kubectl.run(&["exec", "deployment/web", "--", "nslookup", name])?;
    let pods = kubectl.run(&[
        "get",
        "pods",
        "-l",
        "role=follower",
        "-o",
        "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}",
    ])?;
    ensure!(
        pods.lines().count() == 2 && pods.lines().all(|address| answer.contains(address)),
        "{answer}\n{pods}"
    );
    Ok(())
}

fn hits(cluster: &Cluster, port: u16) -> anyhow::Result<Value> {
    let answer = cluster.get(port, "/api/hits")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

/// Everything that a user does to a running application.
fn change_everything(cluster: &Cluster, kubectl: &Kubectl, port: u16) -> anyhow::Result<()> {
    scale(kubectl, "web", 5)?;
    scale(kubectl, "api", 3)?;
    scale(kubectl, "web", 3)?;

    kubectl.run(&["set", "image", "deployment/web", "web=test.local/web:2"])?;
    kubectl.rolled_out("web")?;
    // Pods that end still answer on connections that they have.
    let machine = cluster.machine();
    machine.until("web 2 answers", || Ok(cluster.get(port, "/")?.body.starts_with("web 2 on web-")))?;
    kubectl.run(&["set", "image", "deployment/api", "api=test.local/api:2"])?;
    kubectl.rolled_out("api")?;
    machine.until("version 2 of the API answers", || Ok(hits(cluster, port)?["version"] == "2"))?;

    kubectl.run(&["rollout", "undo", "deployment/web"])?;
    kubectl.rolled_out("web")?;
    machine.until("web 1 answers again", || Ok(cluster.get(port, "/")?.body.starts_with("web 1 on web-")))?;
    let history = kubectl.run(&["rollout", "history", "deployment/web"])?;
    ensure!(history.lines().any(|line| line.starts_with('3')), "{history}");

    let pods = names(kubectl, "app=web")?;
    let victim = pods.first().context("there are three")?;
    kubectl.run(&["delete", &format!("pod/{victim}")])?;
    kubectl.rolled_out("web")?;
    ensure!(!names(kubectl, "app=web")?.contains(victim), "{victim} is still there");
    Ok(())
}

fn scale(kubectl: &Kubectl, deployment: &str, replicas: u32) -> anyhow::Result<()> {
    kubectl.run(&["scale", &format!("deployment/{deployment}"), &format!("--replicas={replicas}")])?;
    kubectl.rolled_out(deployment)?;
    kubectl.wait_for_field(&format!("deployment/{deployment}"), ".status.replicas", &replicas.to_string())
}

/// The pods that are to stay: those of the rollout before may still be about to end.
fn names(kubectl: &Kubectl, selector: &str) -> anyhow::Result<BTreeSet<String>> {
    let list = kubectl.json(&["get", "pods", "-l", selector])?;
    let pods = list["items"].as_array().context("a list has items")?;
    let staying = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(staying.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// kill -9, and `cox up` again: containers go on, and what ended meanwhile is reported as it ended.
fn the_process_is_killed_and_nobody_notices(
    cluster: &Cluster,
    kubectl: &Kubectl,
    port: u16,
) -> anyhow::Result<()> {
    kubectl.apply(LEAVER)?;
    kubectl.wait("pod/leaver", "condition=Ready")?;
    let before = container_processes(cluster)?;
    ensure!(!before.is_empty(), "no container process was found");
    let uid = kubectl.field("pod/leaver", ".metadata.uid")?;

    cluster.kill()?;
    let front = cluster.get(port, "/")?;
    ensure!(front.status == 200, "without its agent, a node goes on serving: {front:?}");
    let door =
        cluster.data().join("kubelet/pods").join(uid).join("volumes/kubernetes.io~empty-dir/door/open");
    std::fs::write(&door, "").with_context(|| format!("cannot write {}", door.display()))?;
    cluster.machine().until("the leaver has left", || {
        Ok(!cluster.machine().processes()?.iter().any(|process| process.command.contains("/door/open")))
    })?;

    cluster.up(&[])?;
    kubectl.wait_for_field("pod/leaver", ".status.phase", "Failed")?;
    let code = kubectl.field("pod/leaver", ".status.containerStatuses[0].state.terminated.exitCode")?;
    ensure!(code == "7", "the exit code is {code}");
    for deployment in DEPLOYMENTS {
        kubectl.rolled_out(deployment)?;
    }
    ensure!(container_processes(cluster)? == before, "containers were restarted");
    let restarts = kubectl.run(&[
        "get",
        "pods",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].restartCount} {end}",
    ])?;
    ensure!(restarts.split_whitespace().all(|pod| pod.ends_with("=0")), "{restarts}");
    let front = cluster.get(port, "/")?;
    ensure!(front.status == 200, "{front:?}");
    kubectl.run(&["delete", "pod/leaver"])?;
    Ok(())
}

/// The main processes of the application's containers.
fn container_processes(cluster: &Cluster) -> anyhow::Result<Vec<Process>> {
    let mut found = cluster.machine().processes()?;
    found.retain(|process| {
        ["nginx: master", "/usr/bin/redis-server", "/bin/sh /bin/api"]
            .iter()
            .any(|start| process.command.starts_with(start))
    });
    Ok(found)
}
