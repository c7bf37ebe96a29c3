//! Pods against each level.

use apimachinery::json;
use auth::UserInfo;

use super::*;
use crate::testing::{Objects, pod, request, run};

fn check(spec: Value, level: &str, expect: &str) {
    let mut world = Objects::default();
    let labels = json!({"pod-security.kubernetes.io/enforce": level.split(':').next(),
        "pod-security.kubernetes.io/enforce-version": level.split(':').nth(1).unwrap_or("latest")});
    world = world.with("namespaces", json!({"metadata": {"name": "ns", "labels": labels}}));
    let user = UserInfo::anonymous();
    let found =
        run(&PodSecurity::default(), &request(&user, Operation::Create, "pods", "p"), pod(spec), &world);
    let expect = if expect.is_empty() {
        Ok(())
    } else {
        Err(format!("pods \"p\" is forbidden: violates PodSecurity \"{level}\": {expect}"))
    };
    assert_eq!(found.map(|_| ()), expect);
}

#[test]
fn the_baseline_refuses_what_leads_to_the_node() {
    let table = [
        (json!({"containers": [{"name": "a"}]}), ""),
        (json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}], "initContainers": [{"name": "i", "securityContext": {"privileged": true}}]}),
            "privileged (containers \"i\", \"a\" must not set securityContext.privileged=true)",
        ),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"v\")"),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
            "",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    for (spec, expect) in table {
        check(spec, "baseline:latest", expect);
    }
}

#[test]
fn the_restricted_level_wants_hardening_and_its_versions_differ() {
    let bare = json!({"containers": [{"name": "a"}]});
    check(
        bare.clone(),
        "restricted:latest",
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    check(
        bare,
        "restricted:v1.18",
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
    );
    let hard = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
    check(hard.clone(), "restricted:latest", "");
    let mut volumes = hard.clone();
    volumes["volumes"] =
        json!([{"name": "n", "nfs": {}}, {"name": "h", "hostPath": {}}, {"name": "e", "emptyDir": {}}]);
    check(
        volumes,
        "restricted:latest",
        "restricted volume types (volumes \"n\", \"h\" use restricted volume types \"hostPath\", \"nfs\")",
    );
    let mut root = hard;
    root["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    check(root.clone(), "restricted:latest", "runAsUser=0 (container \"a\" must not set runAsUser=0)");
    check(root.clone(), "restricted:v1.22", "");
    root["hostUsers"] = json!(false);
    check(root, "restricted:latest", "");
}

#[test]
fn labels_that_cannot_be_read_are_refused_and_a_stricter_level_tells_of_existing_pods() {
    let namespace = |labels: Value| json!({"metadata": {"name": "ns", "labels": labels}});
    let user = UserInfo::anonymous();
    let bad = namespace(
        json!({"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "v1.01"}),
    );
    let create = request(&user, Operation::Create, "namespaces", "ns");
    let refused = run(&PodSecurity::default(), &create, bad, &Objects::default()).expect_err("is refused");
    assert_eq!(
        refused,
        "Namespace \"ns\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"]"
    );
    let running = |name: &str| {
        let mut running = pod(json!({"hostPID": true}));
        running["metadata"]["name"] = name.into();
        running
    };
    let world = Objects::default().with("pods", running("b")).with("pods", running("a"));
    let old = namespace(json!({}));
    let update = Request { old: Some(&old), ..request(&user, Operation::Update, "namespaces", "ns") };
    let new = namespace(json!({"pod-security.kubernetes.io/enforce": "baseline"}));
    run(&PodSecurity::default(), &update, new, &world).expect("is allowed");
    assert_eq!(
        update.notes.take().warnings,
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces"
        ]
    );
}

#[test]
fn workloads_are_warned_about_and_noted_but_not_refused() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "baseline"});
    let world = Objects::default().with("namespaces", json!({"metadata": {"name": "ns", "labels": labels}}));
    let user = UserInfo::anonymous();
    let create = request(&user, Operation::Create, "deployments.apps", "d");
    let deployment = json!({"spec": {"template": {"metadata": {}, "spec": {"hostPID": true}}}});
    run(&PodSecurity::default(), &create, deployment, &world).expect("is allowed");
    let notes = create.notes.take();
    let text = "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!(notes.warnings, [text]);
    assert_eq!(notes.annotations["pod-security.kubernetes.io/audit-violations"], text);
}

#[test]
fn only_new_images_count_in_an_update() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let world = Objects::default().with("namespaces", json!({"metadata": {"name": "ns", "labels": labels}}));
    let user = UserInfo::anonymous();
    let old = pod(json!({"hostPID": true, "containers": [{"name": "a", "image": "x"}]}));
    let update = Request { old: Some(&old), ..request(&user, Operation::Update, "pods", "p") };
    let mut new = old.clone();
    assert!(run(&PodSecurity::default(), &update, new.clone(), &world).is_ok());
    new["spec"]["containers"][0]["image"] = json!("y");
    assert!(run(&PodSecurity::default(), &update, new, &world).is_err());
}

#[test]
fn what_is_found_is_told_for_the_metrics() {
    let label = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let evaluated = |level, minor, mode, allowed| Finding::Evaluated { level, minor, mode, allowed };
    let check = |labels: &[(&str, &str)], resource, spec: Value, expect: &[Finding]| {
        let labels: Value = labels.iter().map(|(mode, level)| (label(mode), Value::from(*level))).collect();
        let world =
            Objects::default().with("namespaces", json!({"metadata": {"name": "ns", "labels": labels}}));
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, resource, "p");
        let plugin = PodSecurity {
            exemptions: Exemptions { runtime_classes: vec!["free".to_owned()], ..Exemptions::default() },
            ..PodSecurity::default()
        };
        // Whether it is refused is for other tests.
        let _refused = run(&plugin, &create, spec, &world).is_err();
        assert_eq!(create.notes.take().findings, expect, "{labels:?} {resource}");
    };
    let bad = || pod(json!({"hostPID": true}));
    check(&[], "pods", bad(), &[evaluated("privileged", None, Mode::Enforce, true)]);
    check(
        &[
            ("enforce", "baseline"),
            ("enforce-version", "v1.30"),
            ("warn", "restricted"),
            ("audit", "baseline"),
        ],
        "pods",
        bad(),
        &[
            evaluated("baseline", Some(30), Mode::Enforce, false),
            evaluated("baseline", None, Mode::Audit, false),
        ],
    );
    check(
        &[("warn", "baseline")],
        "pods",
        bad(),
        &[evaluated("privileged", None, Mode::Enforce, true), evaluated("baseline", None, Mode::Warn, false)],
    );
    let free = pod(json!({"hostPID": true, "runtimeClassName": "free"}));
    check(&[("enforce", "baseline")], "pods", free, &[Finding::Exempt]);
    let template = json!({"spec": {"template": bad()}});
    check(
        &[("warn", "baseline")],
        "deployments.apps",
        template,
        &[evaluated("baseline", None, Mode::Warn, false)],
    );
    check(
        &[("enforce", "strictest")],
        "pods",
        bad(),
        &[Finding::Failed { fatal: false }, evaluated("restricted", None, Mode::Enforce, false)],
    );
}
