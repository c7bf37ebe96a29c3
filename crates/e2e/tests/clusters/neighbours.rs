//! Two clusters on one machine: neither touches what is the other's.

use anyhow::ensure;
use e2e::{Cluster, Kubectl, archive};

#[test]
fn two_clusters_share_a_machine() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let (first, second) = (cluster.name().to_owned(), cluster.neighbour());
    cluster.cox_for(&second, &["up", "--detach"], &[])?.success()?;
    let mut ports = Vec::new();
    for name in [&first, &second] {
        let image = archive("web-1")?.display().to_string();
        cluster.cox_for(name, &["image", "import"], &[&image])?.success()?;
        ports.push(serve(&cluster, &of(&cluster, name)?)?);
    }
    ensure!(ports[0] != ports[1], "both have node port {}", ports[0]);

    cluster.cox_for(&second, &["down"], &["--purge"])?.success()?;
    ensure!(cluster.get(ports[1], "/").is_err(), "a cluster that is gone still answers");
    let answer = cluster.get(ports[0], "/")?;
    ensure!(answer.status == 200, "the other cluster suffered: {answer:?}");
    of(&cluster, &first)?.run(&["get", "nodes"])?;
    cluster.finish()
}

fn of(cluster: &Cluster, name: &str) -> anyhow::Result<Kubectl> {
    Ok(cluster.kubectl()?.in_context(&format!("coxswain-{name}")))
}

/// Puts an application behind a port of the node.
fn serve(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<u16> {
    kubectl.run(&["create", "deployment", "app", "--image=test.local/web:1"])?;
    kubectl.rolled_out("app")?;
    kubectl.run(&["expose", "deployment/app", "--port=80", "--type=NodePort"])?;
    let port = kubectl.field("service/app", ".spec.ports[0].nodePort")?.parse()?;
    cluster.until_served(port)?;
    Ok(port)
}
