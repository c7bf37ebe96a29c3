//! Table tests: a change to a good pod, and the complaints it earns.

use apimachinery::{Value, json};

use super::*;
use crate::core::pod::defaults;
use crate::testing::expect_errors;

fn good_pod() -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "a", "image": "nginx"}]}});
    defaults::pod(&mut pod);
    pod
}

/// Sets `pod.spec.<pointer>`; `null` removes.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut pod = good_pod();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        let parent = if parent.is_empty() { "/spec".to_owned() } else { format!("/spec/{parent}") };
        pod.pointer_mut(&parent).expect("the parent exists")[field] = value.clone();
    }
    defaults::pod(&mut pod);
    pod
}

fn check(pointer: &str, value: Value, expect: &[&str]) {
    expect_errors(&validate_create(&with(&[(pointer, value)])), expect);
}

#[test]
fn a_plain_pod_is_valid() {
    expect_errors(&validate_create(&good_pod()), &[]);
}

#[test]
fn containers_need_unique_names_and_images() {
    check("containers", json!([]), &["spec.containers: Required value"]);
    check(
        "containers/0/name",
        json!("A"),
        &["spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"],
    );
    check("containers/0/image", json!(""), &["spec.containers[0].image: Required value"]);
    check(
        "containers/0/image",
        json!(" nginx"),
        &[
            "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
        ],
    );
    let twice = json!([{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]);
    check("containers", twice.clone(), &["spec.containers[1].name: Duplicate value: \"a\""]);
    check(
        "initContainers",
        json!([{"name": "a", "image": "b"}]),
        &["spec.initContainers[0].name: Duplicate value: \"a\""],
    );
    check(
        "containers/0/imagePullPolicy",
        json!("Sometimes"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
}

#[test]
fn ports_are_numbers_with_unique_names_and_host_ports() {
    check(
        "containers/0/ports",
        json!([{"name": "x", "containerPort": 70000}, {"name": "x", "containerPort": 1, "protocol": "ICMP"}]),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].name: Duplicate value: \"x\"",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        "containers/0/ports",
        json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""],
    );
}

#[test]
fn variables_have_one_source() {
    let at = "spec.containers[0].env[0]";
    let env = |variable: Value| json!([variable]);
    check("containers/0/env", env(json!({"name": "a=b"})), &[&format!("{at}.name: Invalid value: \"a=b\"")]);
    check(
        "containers/0/env",
        env(json!({"name": "a", "valueFrom": {}})),
        &[&format!("{at}.valueFrom: Invalid value: \"\": must specify one of")],
    );
    check(
        "containers/0/env",
        env(json!({"name": "a", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})),
        &[&format!("{at}.valueFrom: Invalid value: \"\": may not be specified when `value` is not empty")],
    );
    check(
        "containers/0/env",
        env(json!({"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}})),
        &[],
    );
    check(
        "containers/0/env",
        env(json!({"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}})),
        &[&format!("{at}.valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\"")],
    );
    check(
        "containers/0/env",
        env(json!({"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "nonsense"}}})),
        &[&format!(
            "{at}.valueFrom.fieldRef.fieldPath: Invalid value: \"nonsense\": error converting fieldPath: field label not supported: nonsense"
        )],
    );
    check(
        "containers/0/env",
        env(
            json!({"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3"}}}),
        ),
        &[&format!(
            "{at}.valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource"
        )],
    );
    check(
        "containers/0/envFrom",
        json!([{}]),
        &[
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ],
    );
}

#[test]
fn sources_of_volumes_are_checked_field_by_field() {
    let check = |source: Value, expect: &[&str]| {
        let mut volume = source;
        volume["name"] = "v".into();
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.volumes[0].{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        expect_errors(&validate_create(&with(&[("volumes", json!([volume]))])), &expect);
    };
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    check(
        json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": claim}}}),
        &[],
    );
    check(
        json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "n"}, "spec": {}}}}),
        &[
            "ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
            "ephemeral.volumeClaimTemplate.spec.accessModes: Required value",
            "ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
        ],
    );
    check(
        json!({"csi": {"driver": "-", "nodePublishSecretRef": {"name": "S"}}}),
        &["csi.driver: Invalid value: \"-\"", "csi.name: Invalid value: \"S\""],
    );
    check(
        json!({"iscsi": {"iqn": "x", "lun": 300, "chapAuthSession": true}}),
        &[
            "iscsi.targetPortal: Required value",
            "iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
            "iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            "iscsi.secretRef: Required value",
        ],
    );
    check(
        json!({"cinder": {"secretRef": {}}}),
        &["cinder.volumeID: Required value", "cinder.secretRef.name: Required value"],
    );
    check(
        json!({"gcePersistentDisk": {"partition": 256}}),
        &["persistentDisk.pdName: Required", "persistentDisk.partition: Invalid"],
    );
    check(json!({"azureFile": {"secretName": "a", "shareName": "b"}}), &[]);
}

#[test]
fn volumes_have_one_source_and_mounts_a_volume() {
    check(
        "volumes",
        json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        "volumes",
        json!([{"name": "v", "secret": {"secretName": "", "defaultMode": 512}}]),
        &[
            "spec.volumes[0].secret.secretName: Required value",
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check(
        "volumes",
        json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]),
        &["spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"],
    );
    check(
        "containers/0/volumeMounts",
        json!([{"name": "v", "mountPath": "/x"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
    let pod = with(&[
        ("volumes", json!([{"name": "v"}])),
        (
            "containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]),
        ),
    ]);
    expect_errors(
        &validate_create(&pod),
        &[
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ],
    );
    let token = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}]);
    let pod = with(&[("volumes", token), ("serviceAccountName", json!("sa"))]);
    expect_errors(
        &validate_create(&pod),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
        ],
    );
}

#[test]
fn resources_are_known_and_requests_within_limits() {
    check(
        "containers/0/resources",
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        "containers/0/resources",
        json!({"requests": {"gpu": "1"}}),
        &[
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        ],
    );
    check(
        "containers/0/resources",
        json!({"requests": {"x.io/gpu": "1"}}),
        &[
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    check(
        "containers/0/resources",
        json!({"requests": {"memory": "-1"}}),
        &[
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn probes_call_one_handler() {
    check(
        "containers/0/livenessProbe",
        json!({}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check(
        "containers/0/livenessProbe",
        json!({"exec": {"command": ["x"]}, "successThreshold": 2}),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    check(
        "containers/0/readinessProbe",
        json!({"httpGet": {"port": "no_name", "scheme": "FTP"}}),
        &[
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: \"no_name\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
        ],
    );
    check(
        "initContainers",
        json!([{"name": "i", "image": "b", "livenessProbe": {"exec": {"command": ["x"]}}}]),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        "containers/0/lifecycle",
        json!({"preStop": {"sleep": {"seconds": 31}}}),
        &[
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ],
    );
}

#[test]
fn the_spec_takes_only_known_policies_and_names() {
    check(
        "restartPolicy",
        json!("Maybe"),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "dnsPolicy",
        json!("None"),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check("nodeName", json!("A"), &["spec.nodeName: Invalid value: \"A\": a lowercase RFC 1123 subdomain"]);
    check(
        "activeDeadlineSeconds",
        json!(0),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        "hostAliases",
        json!([{"ip": "x", "hostnames": ["a"]}]),
        &["spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address"],
    );
    check(
        "schedulingGates",
        json!([{"name": "a.b/c"}, {"name": "a.b/c"}]),
        &["spec.schedulingGates[1]: Duplicate value: \"a.b/c\""],
    );
    check(
        "ephemeralContainers",
        json!([{"name": "e", "image": "b", "ports": [{"containerPort": 1}]}]),
        &[
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ],
    );
    check(
        "securityContext",
        json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}),
        &[
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ],
    );
    check(
        "securityContext",
        json!({"sysctls": [{"name": "net.core.somaxconn", "value": "1"}, {"name": "A"}]}),
        &[
            "spec.securityContext.sysctls[1].name: Invalid value: \"A\": must have at most 253 characters and match regex",
        ],
    );
}

#[test]
fn scheduling_terms_are_checked() {
    check(
        "tolerations",
        json!([{"operator": "Equal", "value": "x"}, {"key": "k", "operator": "Exists", "tolerationSeconds": 1}]),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
            "spec.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    check(
        "affinity",
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ],
    );
    check(
        "affinity",
        json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}),
        &[
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
        ],
    );
    check(
        "topologySpreadConstraints",
        json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "Never"}]),
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
}

fn check_update(changes: &[(&str, Value)], expect: &[&str]) {
    expect_errors(&validate_update(&with(changes), &good_pod()), expect);
}

#[test]
fn an_update_changes_images_and_adds_tolerations() {
    check_update(&[], &[]);
    check_update(
        &[("containers/0/image", json!("nginx:2")), ("containers/0/imagePullPolicy", json!("Always"))],
        &[],
    );
    check_update(&[("tolerations", json!([{"key": "a", "operator": "Exists"}]))], &[]);
    check_update(&[("activeDeadlineSeconds", json!(5))], &[]);
    check_update(
        &[("containers/0/args", json!(["x"]))],
        &[
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,",
        ],
    );
    check_update(
        &[("schedulingGates", json!([{"name": "a.b/c"}]))],
        &[
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a.b/c'",
        ],
    );
    check_update(
        &[("containers", json!([{"name": "a", "image": "nginx"}, {"name": "b", "image": "b"}]))],
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
}

#[test]
fn ephemeral_containers_are_added_never_changed() {
    let added = with(&[("ephemeralContainers", json!([{"name": "e", "image": "x"}]))]);
    expect_errors(&validate_ephemeral_containers_update(&added, &good_pod()), &[]);
    let changed = with(&[("ephemeralContainers", json!([{"name": "e", "image": "y"}]))]);
    expect_errors(
        &validate_ephemeral_containers_update(&changed, &added),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed"],
    );
    expect_errors(
        &validate_ephemeral_containers_update(&good_pod(), &added),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed"],
    );
}

#[test]
fn a_terminated_container_returns_only_if_it_restarts() {
    let state = |state: Value| json!({"status": {"containerStatuses": [{"name": "a", "state": state}]}, "spec": {"restartPolicy": "Never", "containers": [{"name": "a"}]}});
    let old = state(json!({"terminated": {"exitCode": 1}}));
    let new = state(json!({"running": {}}));
    expect_errors(
        &validate_status_update(&new, &old),
        &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
    );
    let mut old = old;
    old["spec"]["restartPolicy"] = json!("OnFailure");
    expect_errors(&validate_status_update(&new, &old), &[]);
}

#[test]
fn devices_of_extended_resources_go_to_containers_that_ask_for_them() {
    let requests = json!({"e.com/gpu": "1"});
    let containers = json!([{"name": "a", "resources": {"requests": requests}}, {"name": "b"}]);
    let pod = |claim: Value| json!({"spec": {"containers": containers}, "status": {"extendedResourceClaimStatus": claim}});
    let mapping = |container: &str, resource: &str, request: &str| json!({"containerName": container, "resourceName": resource, "requestName": request});
    let good = mapping("a", "e.com/gpu", "r-0");
    let check = |mappings: Value, name: &str, expect: &[&str]| {
        let new = pod(json!({"requestMappings": mappings, "resourceClaimName": name}));
        expect_errors(&validate_status_update(&new, &pod(Value::Null)), expect);
    };
    check(json!([good]), "c", &[]);
    check(
        json!([]),
        "",
        &[
            "status.extendedResourceClaimStatus.requestMappings: Required value: at least one request mapping is required",
            "status.extendedResourceClaimStatus.resourceClaimName: Required value",
        ],
    );
    check(
        json!([mapping("b", "e.com/gpu", "r"), mapping("c", "e.com/gpu", "R")]),
        "C",
        &[
            "status.extendedResourceClaimStatus.requestMappings[0].resourceName: Invalid value: \"e.com/gpu\": must match the extended resource name",
            "status.extendedResourceClaimStatus.requestMappings[1].containerName: Invalid value: \"c\": must match the name of an entry",
            "status.extendedResourceClaimStatus.requestName: Invalid value: \"R\"",
            "status.extendedResourceClaimStatus.resourceClaimName: Invalid value: \"C\"",
        ],
    );
    let twice = "status.extendedResourceClaimStatus.requestMappings[1]";
    let fields = ["containerName", "resourceName", "requestName"];
    let expect = fields.map(|field| format!("{twice}.{field}: Duplicate value"));
    check(json!([good, good]), "c", &expect.each_ref().map(String::as_str));
}

#[test]
fn a_binding_names_a_node() {
    expect_errors(&validate_binding(&json!({"target": {"kind": "Node", "name": "n"}})), &[]);
    expect_errors(
        &validate_binding(&json!({"target": {"kind": "Pod"}})),
        &["target.kind: Unsupported value: \"Pod\"", "target.name: Required value"],
    );
}
