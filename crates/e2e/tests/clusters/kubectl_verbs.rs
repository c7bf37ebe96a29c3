//! What a user types, with every version of kubectl that this machine has.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Kubectl, kubectls};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn kubectl_verbs() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1", "web-1", "web-2"])?;
    for (version, program) in kubectls()? {
        let namespace = format!("verbs-{}", version.replace('.', "-"));
        let kubectl = cluster.kubectl()?.of(&program);
        kubectl.run(&["create", "namespace", &namespace])?;
        let kubectl = kubectl.in_namespace(&namespace);
        verbs(&cluster, &kubectl).with_context(|| format!("with kubectl {version}"))?;
        kubectl.run(&["delete", "namespace", &namespace])?;
    }
    cluster.finish()
}

fn verbs(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    type Verb = fn(&Cluster, &Kubectl) -> anyhow::Result<()>;
    let all: [(&str, Verb); 14] = [
        ("create and expose", create_and_expose),
        ("run -it --rm", run_on_a_terminal),
        ("logs", logs),
        ("exec", exec),
        ("cp", cp),
        ("port-forward", port_forward),
        ("get -w", watch),
        ("set image, rollout", rollout),
        ("scale", scale),
        ("label, annotate, edit, patch", edit),
        ("apply --server-side, diff", apply_and_diff),
        ("describe", describe),
        ("explain, api-resources, auth can-i", discover),
        ("top-level get forms", get_forms),
    ];
    for (name, verb) in all {
        verb(cluster, kubectl).with_context(|| format!("kubectl {name}"))?;
    }
    Ok(())
}

fn create_and_expose(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let said =
        kubectl.run(&["create", "deployment", "first-app", "--image=test.local/web:1", "--replicas=2"])?;
    ensure!(said == "deployment.apps/first-app created\n", "{said}");
    kubectl.rolled_out("first-app")?;
    kubectl.run(&["expose", "deployment/first-app", "--port=80", "--type=NodePort"])?;
    let port = kubectl.field("service/first-app", ".spec.ports[0].nodePort")?.parse()?;
    cluster.until_served(port)?;
    let answer = cluster.get(port, "/")?;
    ensure!(answer.body.starts_with("web 1 on first-app-"), "{answer:?}");
    kubectl.run(&["wait", "deployment/first-app", "--for=condition=Available", "--timeout=60s"])?;
    Ok(())
}

fn run_on_a_terminal(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let command =
        ["run", "tty", "--image=test.local/busybox:1", "-it", "--rm", "--restart=Never", "--", "sh", "-c"];
    let script = "tty; read -r line; echo typed:$line:$((6 * 7))";
    let said = kubectl.on_terminal(&[&command[..], &[script]].concat(), "hello\n")?;
    ensure!(said.contains("typed:hello:42"), "{said}");
    ensure!(said.contains("pod \"tty\" deleted"), "{said}");
    // Waits for its end, if it is still on its way out.
    kubectl.run(&["delete", "pod/tty", "--ignore-not-found"])?;
    Ok(())
}

fn logs(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let script =
        "echo first; echo second; until [ -e /tmp/more ]; do sleep 0.1; done; echo third; sleep 1000";
    kubectl.run(&["run", "talker", "--image=test.local/busybox:1", "--", "sh", "-c", script])?;
    kubectl.wait("pod/talker", "condition=Ready")?;
    let mut follow = kubectl.background(&["logs", "-f", "talker"])?;
    follow.line_with("second", DEADLINE)?;
    kubectl.run(&["exec", "talker", "--", "touch", "/tmp/more"])?;
    follow.line_with("third", DEADLINE)?;
    let all = kubectl.run(&["logs", "talker"])?;
    ensure!(all == "first\nsecond\nthird\n", "{all}");
    let tail = kubectl.run(&["logs", "talker", "--tail=1", "--timestamps"])?;
    ensure!(tail.lines().count() == 1 && tail.contains("Z third"), "{tail}");
    Ok(())
}

fn exec(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.run(&["exec", "talker", "--", "sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said == "out\n", "{said}");
    let piped = kubectl.attempt(&["exec", "-i", "talker", "--", "cat"], "through a pipe\n")?.success()?;
    ensure!(piped == "through a pipe\n", "{piped}");
    let failed = kubectl.attempt(&["exec", "talker", "--", "sh", "-c", "exit 3"], "")?;
    ensure!(failed.status.code() == Some(3), "{failed}");
    // It speaks only when it was spoken to: kubectl may lose what comes before it is ready.
    let terminal =
        ["exec", "-it", "talker", "--", "sh", "-c", "test -t 0 && read -r x && tty && echo got:$x"];
    let said = kubectl.on_terminal(&terminal, "ping\n")?;
    ensure!(said.contains("/dev/pts/") && said.contains("got:ping"), "{said}");
    Ok(())
}

fn cp(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let dir = cluster.scratch()?;
    let (there, back) = (dir.join("there"), dir.join("back"));
    let content = "0123456789abcdef\n".repeat(20_000);
    fs::write(&there, &content)?;
    kubectl.run(&["cp", &there.display().to_string(), "talker:/tmp/copied"])?;
    kubectl.run(&["cp", "talker:/tmp/copied", &back.display().to_string()])?;
    ensure!(fs::read_to_string(&back)? == content, "the copy of the copy differs");
    fs::remove_file(&back)?;
    Ok(())
}

fn port_forward(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    for object in ["deployment/first-app", "service/first-app"] {
        let mut forward = kubectl.background(&["port-forward", object, ":80"])?;
        let line = forward.line_with("Forwarding from 127.0.0.1:", DEADLINE)?;
        let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).context("a port")?;
        let address = format!("127.0.0.1:{port}").parse()?;
        // More than one, one after the other, through one session.
        for round in 0..5 {
            let answer =
                cluster.get_from(address, "/").with_context(|| format!("{object}, round {round}"))?;
            ensure!(answer.body.starts_with("web 1 on first-app-"), "{answer:?}");
        }
    }
    Ok(())
}

fn watch(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let mut watch = kubectl.background(&["get", "pods", "-w", "--show-labels"])?;
    watch.line_with("talker", DEADLINE)?;
    kubectl.run(&["label", "pod/talker", "watched=yes"])?;
    watch.line_with("watched=yes", DEADLINE)?;
    Ok(())
}

fn rollout(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let deployment = "deployment/first-app";
    kubectl.run(&["set", "image", deployment, "web=test.local/web:2"])?;
    kubectl.rolled_out("first-app")?;
    ensure!(image(kubectl)? == "test.local/web:2");
    kubectl.run(&["rollout", "undo", deployment])?;
    kubectl.rolled_out("first-app")?;
    ensure!(image(kubectl)? == "test.local/web:1");
    kubectl.run(&["rollout", "restart", deployment])?;
    kubectl.rolled_out("first-app")?;
    kubectl.run(&["rollout", "pause", deployment])?;
    kubectl.run(&["rollout", "resume", deployment])?;
    let history = kubectl.run(&["rollout", "history", deployment])?;
    ensure!(history.contains("REVISION"), "{history}");
    Ok(())
}

fn image(kubectl: &Kubectl) -> anyhow::Result<String> {
    kubectl.field("deployment/first-app", ".spec.template.spec.containers[0].image")
}

fn scale(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run(&["scale", "deployment/first-app", "--replicas=3", "--current-replicas=2"])?;
    kubectl.rolled_out("first-app")?;
    let refused =
        kubectl.attempt(&["scale", "deployment/first-app", "--replicas=9", "--current-replicas=2"], "")?;
    let why = refused.failure()?;
    ensure!(why.contains("Expected replicas to be 2, was 3"), "{why}");
    kubectl.run(&["scale", "deployment/first-app", "--replicas=1"])?;
    kubectl.wait_for_field("deployment/first-app", ".status.replicas", "1")
}

fn edit(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run(&["create", "configmap", "paint", "--from-literal=colour=blue"])?;
    kubectl.run(&["label", "configmap/paint", "tier=front"])?;
    let refused = kubectl.attempt(&["label", "configmap/paint", "tier=back"], "")?.failure()?;
    ensure!(refused.contains("already has a value (front), and --overwrite is false"), "{refused}");
    kubectl.run(&["annotate", "configmap/paint", "note=by hand"])?;
    let editor = kubectl.with_env("KUBE_EDITOR", "sed -i s/blue/green/");
    editor.run(&["edit", "configmap/paint"])?;
    ensure!(kubectl.field("configmap/paint", ".data.colour")? == "green");
    for (kind, patch) in [
        ("strategic", r#"{"data":{"a":"1"}}"#),
        ("merge", r#"{"data":{"b":"2"}}"#),
        ("json", r#"[{"op":"add","path":"/data/c","value":"3"}]"#),
    ] {
        // ConfigMaps have no patch keys of their own, yet all three ways lead to them.
        kubectl.run(&["patch", "configmap/paint", "--type", kind, "--patch", patch])?;
    }
    let all = kubectl.json(&["get", "configmap/paint"])?;
    ensure!(all["data"] == serde_json::json!({"a": "1", "b": "2", "c": "3", "colour": "green"}), "{all}");
    ensure!(all["metadata"]["labels"]["tier"] == "front", "{all}");
    ensure!(all["metadata"]["annotations"]["note"] == "by hand", "{all}");
    Ok(())
}

fn apply_and_diff(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let manifest = |colour: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  colour: {colour}\n")
    };
    let server_side = |manager: &str, colour: &str| {
        let flag = format!("--field-manager={manager}");
        kubectl.attempt(&["apply", "--server-side", &flag, "-f", "-"], &manifest(colour))
    };
    let said = server_side("one", "red")?.success()?;
    ensure!(said == "configmap/applied serverside-applied\n", "{said}");
    let conflict = server_side("two", "blue")?.failure()?;
    ensure!(conflict.contains("conflict with \"one\""), "{conflict}");
    let same =
        kubectl.attempt(&["diff", "--server-side", "--field-manager=one", "-f", "-"], &manifest("red"))?;
    ensure!(same.status.code() == Some(0), "{same}");
    let other =
        kubectl.attempt(&["diff", "--server-side", "--field-manager=one", "-f", "-"], &manifest("blue"))?;
    ensure!(other.status.code() == Some(1) && other.stdout.contains("+  colour: blue"), "{other}");
    let forced = ["apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-"];
    kubectl.attempt(&forced, &manifest("blue"))?.success()?;
    ensure!(kubectl.field("configmap/applied", ".data.colour")? == "blue");
    // The older way, with its annotation, and a dry run at the server.
    kubectl.apply(&manifest("blue").replace("applied", "classic"))?;
    let again = kubectl.apply(&manifest("blue").replace("applied", "classic"))?;
    ensure!(again == "configmap/classic unchanged\n", "{again}");
    let dry = ["apply", "--dry-run=server", "-f", "-"];
    let said = kubectl.attempt(&dry, &manifest("red").replace("applied", "classic"))?.success()?;
    ensure!(said == "configmap/classic configured (server dry run)\n", "{said}");
    ensure!(kubectl.field("configmap/classic", ".data.colour")? == "blue");
    Ok(())
}

fn describe(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let deployment = kubectl.run(&["describe", "deployment/first-app"])?;
    ensure!(
        deployment.contains("ScalingReplicaSet") && deployment.contains("RollingUpdateStrategy"),
        "{deployment}"
    );
    for word in ["Successfully assigned", "Container started", "Container ID:", "kube-api-access-"] {
        kubectl.described("pod/talker", word)?;
    }
    let node = kubectl.run(&["describe", "nodes"])?;
    ensure!(node.contains("Allocatable:") && node.contains("Non-terminated Pods:"), "{node}");
    Ok(())
}

fn discover(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let explained = kubectl.run(&["explain", "deployment.spec.strategy.rollingUpdate"])?;
    ensure!(explained.contains("maxUnavailable") && explained.contains("maxSurge"), "{explained}");
    let resources = kubectl.run(&["api-resources", "--no-headers"])?;
    for line in ["deployments", "endpointslices", "configmaps", "leases", "clusterrolebindings"] {
        ensure!(resources.lines().any(|found| found.starts_with(line)), "no {line} in:\n{resources}");
    }
    let versions = kubectl.run(&["api-versions"])?;
    ensure!(versions.contains("apps/v1\n") && versions.contains("discovery.k8s.io/v1\n"), "{versions}");
    let may = kubectl.run(&["auth", "can-i", "create", "deployments"])?;
    ensure!(may == "yes\n", "{may}");
    let nobody = ["auth", "can-i", "list", "secrets", "--as=system:serviceaccount:default:default"];
    let may = kubectl.attempt(&nobody, "")?;
    ensure!(may.status.code() == Some(1) && may.stdout == "no\n", "{may}");
    let version = kubectl.run(&["version"])?;
    ensure!(version.contains("1.36"), "{version}");
    Ok(())
}

fn get_forms(_: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let wide = kubectl.run(&["get", "pods", "-o", "wide"])?;
    ensure!(wide.contains("NOMINATED NODE") && wide.contains("e2e-node"), "{wide}");
    let all = kubectl.run(&["get", "all"])?;
    for name in ["pod/talker", "service/first-app", "deployment.apps/first-app", "replicaset.apps/first-app-"]
    {
        ensure!(all.contains(name), "no {name} in:\n{all}");
    }
    let yaml = kubectl.run(&["get", "deploy", "first-app", "-o", "yaml"])?;
    ensure!(yaml.contains("revisionHistoryLimit: 10") && yaml.contains("kind: Deployment"), "{yaml}");
    let selected =
        kubectl.run(&["get", "pods", "-l", "watched=yes", "--field-selector=status.phase=Running"])?;
    ensure!(selected.lines().count() == 2, "{selected}");
    let events = kubectl.run(&["get", "events", "--field-selector=involvedObject.name=talker"])?;
    ensure!(events.contains("Started"), "{events}");
    kubectl.run(&["delete", "pod/talker", "--now"])?;
    let gone = kubectl.attempt(&["get", "pod/talker"], "")?.failure()?;
    ensure!(gone.contains("Error from server (NotFound): pods \"talker\" not found"), "{gone}");
    Ok(())
}
