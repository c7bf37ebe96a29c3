//! Images from registries, from their mirrors, and from a folder of archives.

use std::fs;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Registry, archive};

#[test]
fn images_come_from_a_registry_by_tag_and_by_digest() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let registry = Registry::plain(&cluster.scratch()?);
    let (serving, address) = (registry.serve(cluster.machine())?, &registry.address);
    registry.push(cluster.machine(), "web-1", "web:1")?;
    registry.push(cluster.machine(), "web-2", "web:2")?;

    let image = format!("{address}/web:1");
    kubectl.run(&["create", "deployment", "pulled", &format!("--image={image}")])?;
    kubectl.rolled_out("pulled")?;
    let events = kubectl.run(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
    ensure!(events.contains(&format!("Successfully pulled image \"{image}\" in ")), "{events}");

    let id =
        kubectl.run(&["get", "pods", "-o", "jsonpath={.items[0].status.containerStatuses[0].imageID}"])?;
    let digest = id.rsplit('@').next().context("a digest")?;
    ensure!(digest.starts_with("sha256:"), "{id}");
    let pinned = format!("{address}/web@{digest}");
    kubectl.run(&["run", "pinned", &format!("--image={pinned}"), "--image-pull-policy=Always"])?;
    kubectl.wait("pod/pinned", "condition=Ready")?;

    kubectl.run(&["run", "missing", &format!("--image={address}/web:nosuchtag")])?;
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    kubectl.wait_for_field("pod/missing", reason, "ImagePullBackOff")?;
    let described = kubectl.described("pod/missing", "Failed to pull image")?;
    ensure!(described.contains("not found") || described.contains("manifest unknown"), "{described}");

    let second = format!("{address}/web:2");
    cluster.cox(&["image", "pull"], &[&second])?.success()?;
    let list = cluster.cox(&["image", "list"], &[])?.success()?;
    ensure!(list.contains(&second) && list.contains(&image), "{list}");
    cluster.cox(&["image", "remove"], &[&second])?.success()?;
    let list = cluster.cox(&["image", "list"], &[])?.success()?;
    ensure!(!list.contains(&second) && list.contains(&image), "{list}");
    drop(serving);
    cluster.finish()
}

#[test]
fn images_come_from_a_mirror_with_an_authority_of_its_own() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let dir = cluster.scratch()?;
    let (registry, file) = (Registry::with_tls(&dir)?, dir.join("registries.yaml"));
    let text = |authority: &str| {
        format!(
            "mirrors:\n  registry.example: {{endpoint: ['https://{0}'], rewrite: {{'^team/(.*)': 'cached/$1'}}}}\n\
             configs:\n  '{0}': {{tls: {{{authority}}}}}\n",
            registry.address
        )
    };
    fs::write(&file, text(""))?;
    cluster.up(&["--private-registry", &file.display().to_string()])?;
    let serving = registry.serve(cluster.machine())?;
    registry.push(cluster.machine(), "web-1", "cached/web:1")?;

    let image = "registry.example/team/web:1";
    let refused = cluster.cox(&["image", "pull"], &[image])?.failure()?;
    ensure!(refused.contains("certificate"), "an authority nobody knows was believed: {refused}");
    // Read anew for each pull: nothing is restarted.
    fs::write(&file, text(&format!("ca_file: {}", registry.authority().display())))?;
    let kubectl = cluster.kubectl()?;
    kubectl.run(&["run", "mirrored", &format!("--image={image}")])?;
    kubectl.wait("pod/mirrored", "condition=Ready")?;
    let id = kubectl.field("pod/mirrored", ".status.containerStatuses[0].imageID")?;
    ensure!(id.starts_with("registry.example/team/web@sha256:"), "it is not known by its own name: {id}");
    drop(serving);
    cluster.finish()
}

#[test]
fn images_are_there_whose_archives_are_put_into_the_folder() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let folder = cluster.scratch()?.join("images");
    fs::create_dir(&folder)?;
    fs::copy(archive("web-1")?, folder.join("before.tar"))?;
    cluster.up(&["--images-dir", &folder.display().to_string()])?;
    let has = |name: &str| -> anyhow::Result<bool> {
        let list = cluster.cox(&["image", "list"], &[])?.success()?;
        Ok(list.contains(name))
    };
    cluster.machine().until("the first is imported", || has("test.local/web:1"))?;
    fs::copy(archive("web-2")?, folder.join("after.tar"))?;
    cluster.machine().until("the second is imported", || has("test.local/web:2"))?;
    cluster.finish()
}
