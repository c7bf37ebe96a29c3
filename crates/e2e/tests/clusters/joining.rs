//! A machine becomes a node by a token, and stays one without it.

use anyhow::ensure;
use e2e::{Cluster, Kubectl, SECOND_NAME, SecondNode};

const OBJECTS: &str = include_str!("manifests/joining.yaml");
/// A pin that no authority has.
const OTHER_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_machine_joins_by_a_token_and_stays_without_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    who_shows_the_wrong_token_or_meets_the_wrong_cluster_is_told(&cluster)?;
    let mut second = SecondNode::join(&cluster)?;
    let node = format!("node/{SECOND_NAME}");
    cluster.machine().until("the node is there", || Ok(kubectl.run(&["get", &node]).is_ok()))?;
    kubectl.wait(&node, "condition=Ready")?;
    second.import("busybox-1")?;
    kubectl.apply(OBJECTS)?;
    for pod in ["near", "far"] {
        kubectl.wait(&format!("pod/{pod}"), "condition=Ready")?;
    }
    the_nodes_are_one_cluster(&cluster, &kubectl)?;
    each_token_signs_what_the_cluster_says_of_itself(&cluster, &kubectl)?;

    for id in tokens(&cluster)? {
        cluster.cox(&["token", "delete"], &[&id])?.success()?;
    }
    second.kill()?;
    second.start()?;
    second.until_registered()?;
    cluster.machine().until("its kubelet answers again", || {
        Ok(kubectl.run(&["exec", "far", "--", "hostname"]).is_ok_and(|name| name == "far\n"))
    })?;
    kubectl.run(&["delete", "pods,services", "--all", "--now"])?;
    second.leave()?;
    cluster.finish()
}

/// Their ids.
fn tokens(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let list = cluster.cox(&["token", "list", "-o", "json"], &[])?.success()?;
    let tokens = list.split('"').filter_map(|word| word.split_once('.'));
    Ok(tokens
        .filter(|(id, secret)| (id.len(), secret.len()) == (6, 16))
        .map(|(id, _)| id.to_owned())
        .collect())
}

fn each_token_signs_what_the_cluster_says_of_itself(
    cluster: &Cluster,
    kubectl: &Kubectl,
) -> anyhow::Result<()> {
    let tokens = tokens(cluster)?;
    ensure!(!tokens.is_empty());
    cluster.machine().until("cluster-info is signed with each token", || {
        let data =
            kubectl.run(&["get", "-n", "kube-public", "configmap/cluster-info", "-o", "jsonpath={.data}"])?;
        Ok(tokens.iter().all(|id| data.contains(&format!("\"jws-kubeconfig-{id}\":"))))
    })
}

fn who_shows_the_wrong_token_or_meets_the_wrong_cluster_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let invitation = SecondNode::invitation(cluster)?;
    let refusal = |place: usize, text: &str| {
        let mut flags: Vec<&str> = invitation.iter().map(String::as_str).collect();
        flags[place] = text;
        cluster.cox_for(&cluster.neighbour(), &["agent"], &flags)?.failure()
    };
    let of = |flag: &str| invitation.iter().position(|given| given == flag).map_or(0, |place| place + 1);
    let pinned = refusal(of("--discovery-token-ca-cert-hash"), OTHER_PIN)?;
    ensure!(pinned.contains("another cluster") && pinned.contains(OTHER_PIN), "{pinned}");
    let unknown = refusal(of("--token"), "abcdef.0123456789abcdef")?;
    ensure!(unknown.contains("does not know the token") && unknown.contains("cox token create"), "{unknown}");
    let silent = refusal(of("--server"), "https://127.0.0.1:1")?;
    ensure!(silent.contains("does not answer"), "{silent}");
    Ok(())
}

/// Pods of both nodes reach each other, by address and by Service, by names that each node answers; both are reached by
/// `kubectl`.
fn the_nodes_are_one_cluster(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    for (from, to) in [("near", "far"), ("far", "near")] {
        let address = kubectl.field(&format!("pod/{to}"), ".status.podIP")?;
        for target in [address.as_str(), to] {
            let ask = format!("timeout 5 wget -q -O - http://{target}/");
            // A pod is Ready before every node has heard that its Service leads to it.
            cluster.machine().until(&format!("{to} answers {from} at {target}"), || {
                let answer = kubectl.run(&["exec", from, "--", "sh", "-c", &ask]);
                Ok(answer.is_ok_and(|answer| answer == format!("{to}\n")))
            })?;
        }
        ensure!(kubectl.run(&["logs", to])? == format!("{to} serves\n"));
    }
    Ok(())
}
