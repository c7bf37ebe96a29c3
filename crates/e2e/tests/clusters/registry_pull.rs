//! Images from a registry: Debian's `docker-registry` on the machine itself, filled by `skopeo`.

use std::fs;

use anyhow::{Context as _, ensure};
use e2e::{Background, Cluster, archive};

const REGISTRY: &str = "127.0.0.1:5000";

#[test]
fn images_come_from_a_registry_by_tag_and_by_digest() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let registry = registry(&cluster)?;
    push(&cluster, "web-1", "web:1")?;
    push(&cluster, "web-2", "web:2")?;

    let image = format!("{REGISTRY}/web:1");
    kubectl.run(&["create", "deployment", "pulled", &format!("--image={image}")])?;
    kubectl.rolled_out("pulled")?;
    let events = kubectl.run(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
    ensure!(events.contains(&format!("Successfully pulled image \"{image}\" in ")), "{events}");

    let id =
        kubectl.run(&["get", "pods", "-o", "jsonpath={.items[0].status.containerStatuses[0].imageID}"])?;
    let digest = id.rsplit('@').next().context("a digest")?;
    ensure!(digest.starts_with("sha256:"), "{id}");
    let pinned = format!("{REGISTRY}/web@{digest}");
    kubectl.run(&["run", "pinned", &format!("--image={pinned}"), "--image-pull-policy=Always"])?;
    kubectl.wait("pod/pinned", "condition=Ready")?;

    kubectl.run(&["run", "missing", &format!("--image={REGISTRY}/web:nosuchtag")])?;
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    kubectl.wait_for_field("pod/missing", reason, "ImagePullBackOff")?;
    let described = kubectl.run(&["describe", "pod/missing"])?;
    ensure!(described.contains("not found") || described.contains("manifest unknown"), "{described}");

    let second = format!("{REGISTRY}/web:2");
    cluster.cox(&["image", "pull"], &[&second])?.success()?;
    let list = cluster.cox(&["image", "list"], &[])?.success()?;
    ensure!(list.contains(&second) && list.contains(&image), "{list}");
    cluster.cox(&["image", "remove"], &[&second])?.success()?;
    let list = cluster.cox(&["image", "list"], &[])?.success()?;
    ensure!(!list.contains(&second) && list.contains(&image), "{list}");
    drop(registry);
    cluster.finish()
}

fn registry(cluster: &Cluster) -> anyhow::Result<Background> {
    let dir = cluster.scratch()?;
    let config = dir.join("registry.yml");
    let storage = dir.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: {REGISTRY}}}\n",
        storage.display()
    );
    fs::write(&config, text)?;
    let mut registry =
        cluster.machine().background("docker-registry", &["serve", &config.display().to_string()])?;
    registry.line_with("listening on", std::time::Duration::from_secs(30))?;
    Ok(registry)
}

fn push(cluster: &Cluster, from: &str, to: &str) -> anyhow::Result<()> {
    let from = format!("oci-archive:{}", archive(from)?.display());
    let to = format!("docker://{REGISTRY}/{to}");
    let args = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to];
    cluster.machine().run("skopeo", &args)?.success().map(drop)
}
