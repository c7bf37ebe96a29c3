//! `cox up`, `cox up --demo`, `cox down`: what they say, and that nothing stays behind.

use e2e::{Cluster, Kubectl};
use serde_json::Value;

#[test]
fn the_demo_runs_and_down_leaves_only_the_data() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let said = cluster.up(&["--demo"])?;
    assert!(said.contains("demo runs with 3 replicas"), "{said}");
    let kubectl = cluster.kubectl()?;
    kubectl.run(&["wait", "pods", "--for=condition=Ready", "--selector=app=demo"])?;
    let port = node_port(&kubectl, "demo")?;
    cluster.until_served(port)?;
    let answer = cluster.get(port, "/")?;
    assert!(answer.status == 200 && answer.body.starts_with("Hello from demo-"), "{answer:?}");

    let status: Value = serde_json::from_str(&cluster.cox(&["status"], &["--output", "json"])?.success()?)?;
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["pods"]["Running"], 3, "{status}");

    cluster.cox(&["down"], &[])?.success()?;
    let data = cluster.data().parent().expect("a root").display().to_string();
    let left: Vec<String> = cluster.left_behind()?.into_iter().filter(|line| !line.contains(&data)).collect();
    assert!(left.is_empty(), "`cox down` left behind:\n{}", left.join("\n"));
    assert!(cluster.data().join("store").exists(), "`cox down` keeps the data");

    // The data is enough to continue.
    cluster.up(&[])?;
    kubectl.rolled_out("demo")?;
    cluster.finish()
}

#[test]
fn a_second_up_names_the_first_and_fails() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let said = cluster.cox(&["up", "--detach"], &[])?.failure()?;
    assert!(said.contains("is already running (process "), "{said}");
    let config = cluster.cox(&["kubeconfig"], &[])?.success()?;
    assert!(config.contains("kind: Config") || config.contains("\"Config\""), "{config}");
    cluster.cox(&["down"], &[])?.success()?;
    let again = cluster.cox(&["down"], &[])?.success()?;
    assert_eq!(again, "", "a second down has nothing to do");
    cluster.finish()
}

#[test]
fn other_contexts_of_the_user_stay_as_they_are() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let path = cluster.home().join(".kube/config");
    std::fs::create_dir_all(path.parent().expect("it has one"))?;
    let mine = "apiVersion: v1\nkind: Config\ncurrent-context: mine\nclusters:\n- name: c\n  cluster:\n    server: https://192.0.2.9:1\n\
                contexts:\n- name: mine\n  context:\n    cluster: c\n    user: u\nusers:\n- name: u\n  user:\n    token: t\n";
    std::fs::write(&path, mine)?;
    cluster.up(&[])?;
    let kubectl = cluster.kubectl()?;
    let contexts = kubectl.run(&["config", "get-contexts", "-o", "name"])?;
    let ours = format!("coxswain-{}", cluster.name());
    assert!(
        contexts.lines().any(|line| line == ours) && contexts.lines().any(|line| line == "mine"),
        "{contexts}"
    );
    kubectl.run(&["--context", &ours, "get", "nodes"])?;
    cluster.cox(&["down"], &["--purge"])?.success()?;
    let contexts = kubectl.run(&["config", "get-contexts", "-o", "name"])?;
    assert_eq!(contexts, "mine\n");
    assert_eq!(kubectl.run(&["config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"])?, "t");
    std::fs::remove_dir_all(path.parent().expect("it has one"))?;
    cluster.finish()
}

fn node_port(kubectl: &Kubectl, service: &str) -> anyhow::Result<u16> {
    Ok(kubectl.field(&format!("service/{service}"), ".spec.ports[0].nodePort")?.parse()?)
}
