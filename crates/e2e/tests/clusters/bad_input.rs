//! What is wrong is refused, with upstream's words and a way out, and costs nothing else.

use std::fs;
use std::net::TcpListener;

use anyhow::ensure;
use e2e::{Cluster, Kubectl, archive};

/// A pod with one thing wrong, put in by the cases.
const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: wrong
spec:
  containers:
  - name: c
    image: test.local/busybox:1
";

#[test]
fn wrong_manifests_get_upstreams_answers() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let refused = |manifest: &str, words: &[&str]| -> anyhow::Result<()> {
        let said = kubectl.attempt(&["apply", "--validate=false", "-f", "-"], manifest)?.failure()?;
        for word in words {
            ensure!(said.contains(word), "no {word:?} in:\n{said}\nfor:\n{manifest}");
        }
        Ok(())
    };
    refused(
        &POD.replace("wrong", "Wrong_Name"),
        &["metadata.name: Invalid value: \"Wrong_Name\"", "RFC 1123"],
    )?;
    refused(
        &POD.replace("name: c", "name: C"),
        &["The Pod \"wrong\" is invalid", "spec.containers[0].name"],
    )?;
    refused(
        &POD.replace("    image: test.local/busybox:1\n", ""),
        &["spec.containers[0].image: Required value"],
    )?;
    let both = POD.replace("name: c", "name: C") + "  restartPolicy: Sometimes\n";
    refused(&both, &["spec.containers[0].name", "spec.restartPolicy: Unsupported value: \"Sometimes\""])?;
    refused(&(POD.to_owned() + "    resources:\n      limits: {cpu: 1x}\n"), &["quantities must match"])?;
    refused(
        &POD.replace("apiVersion: v1", "apiVersion: v9"),
        &["no matches for kind \"Pod\" in version \"v9\""],
    )?;
    unknown_fields(&kubectl)?;

    kubectl.run(&["create", "configmap", "once"])?;
    let again = kubectl.attempt(&["create", "configmap", "once"], "")?.failure()?;
    ensure!(again.contains("configmaps \"once\" already exists"), "{again}");
    let stale =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: once\n  resourceVersion: \"1\"\ndata: {a: b}\n";
    let conflict = kubectl.attempt(&["replace", "-f", "-"], stale)?.failure()?;
    ensure!(
        conflict.contains("the object has been modified; please apply your changes to the latest"),
        "{conflict}"
    );
    cluster.finish()
}

fn unknown_fields(kubectl: &Kubectl) -> anyhow::Result<()> {
    let manifest = POD.to_owned() + "    imagePullPolice: Never\n";
    let strict = kubectl.attempt(&["apply", "-f", "-"], &manifest)?.failure()?;
    ensure!(strict.contains("unknown field") && strict.contains("imagePullPolice"), "{strict}");
    // Asked directly, as clients did before strictness could be chosen: they are warned.
    let pod = r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "warned"},
        "spec": {"containers": [{"name": "c", "image": "i", "imagePullPolice": "Never"}]}}"#;
    let path = "/api/v1/namespaces/default/pods?dryRun=All";
    let warned = kubectl.attempt(&["create", "--raw", path, "-f", "-"], pod)?;
    let warning = "Warning: unknown field \"spec.containers[0].imagePullPolice\"";
    ensure!(warned.status.success() && warned.stderr.contains(warning), "{warned}");
    let chosen =
        kubectl.attempt(&["create", "--raw", &format!("{path}&fieldValidation=Strict"), "-f", "-"], pod)?;
    let refused = chosen.failure()?;
    ensure!(refused.contains("strict decoding error: unknown field"), "{refused}");
    Ok(())
}

#[test]
fn an_image_that_is_nowhere_says_so_and_one_that_comes_late_is_taken() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    kubectl.run(&["run", "lost", "--image=127.0.0.1:1/nowhere/app:1"])?;
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    kubectl.wait_for_field("pod/lost", reason, "ImagePullBackOff")?;
    let described = kubectl.described("pod/lost", "Failed to pull image \"127.0.0.1:1/nowhere/app:1\"")?;
    ensure!(described.contains("refused"), "the reason is missing:\n{described}");
    kubectl.run(&["delete", "pod/lost"])?;

    kubectl.run(&[
        "run",
        "never",
        "--image=test.local/busybox:1",
        "--image-pull-policy=Never",
        "--",
        "sleep",
        "99",
    ])?;
    kubectl.wait_for_field("pod/never", reason, "ErrImageNeverPull")?;
    cluster.cox(&["image", "import"], &[&archive("busybox-1")?.display().to_string()])?.success()?;
    kubectl.wait("pod/never", "condition=Ready")?;
    cluster.finish()
}

#[test]
fn a_damaged_archive_is_refused_whole() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let whole = fs::read(archive("busybox-1")?)?;
    let mut flipped = whole.clone();
    // In the midst of the layer, which is nearly all of the archive.
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let import = |name: &str, bytes: &[u8]| {
        let path = cluster.scratch()?.join(name);
        fs::write(&path, bytes)?;
        cluster.cox(&["image", "import"], &[&path.display().to_string()])
    };
    let damaged: [(&str, &[u8], &str); 3] = [
        ("cut", &whole[..whole.len() / 2], ""),
        ("flipped", &flipped, ""),
        ("garbage", &[7; 8 << 20], "archive is not valid"),
    ];
    for (name, bytes, why) in damaged {
        let said = import(name, bytes)?.failure()?;
        ensure!(said.contains("was not imported") && said.contains(why), "{name}: {said}");
    }
    let missing = cluster.cox(&["image", "import"], &["/nowhere.tar"])?.failure()?;
    ensure!(missing.contains("/nowhere.tar cannot be opened"), "{missing}");
    let list = cluster.cox(&["image", "list"], &["--output", "json"])?.success()?;
    ensure!(list.trim() == "[]", "{list}");

    // What follows an archive's end, such as the rest of a tape's block, is no part of it.
    let padded = [whole, vec![0; 8 << 20]].concat();
    ensure!(import("padded", &padded)?.success()?.contains("test.local/busybox:1"), "the image has no name");
    cluster.finish()
}

#[test]
fn a_port_in_use_is_named_before_anything_is_made() -> anyhow::Result<()> {
    let cluster = Cluster::prepare()?;
    let listener = cluster.machine().in_network(|| TcpListener::bind("0.0.0.0:7443"))??;
    let said = cluster.cox(&["up", "--detach"], &["--secure-port", "7443"])?.failure()?;
    ensure!(said.contains("port 7443 cannot be used") && said.contains("ss -ltnp"), "{said}");
    drop(listener);
    cluster.up(&["--secure-port", "7443"])?;
    cluster.kubectl()?.run(&["get", "--raw", "/readyz"])?;
    cluster.finish()
}
