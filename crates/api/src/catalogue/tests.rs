//! What holds for every row, shown on one small object of each kind.

use std::collections::BTreeSet;

use apimachinery::json;

use super::*;

/// A signing request for `CN=x`, in base64 of PEM.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIR01HNENBUUF3RERFS01BZ0dBMVVFQXd3QmVEQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCRnZBeUxGREp4SmZucGFtaW9lbGhtcjJVaFVjT3pIWjlDL3VwYnRNYloxRmUrNVpUWm5CbklRdXErWVIyZExzCmVhQWZtcGNHT2hySEU3WlJDNy9HVXZtZ0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpRUF6NHdyemZoVEtYUHgKcW05Sld3RzBnMXFNMDduenZVZ2Q3SlVVTS9EMWZSb0NJR0hja2RWSG9rUld4YW9vbkZBUjlVeHdDRVFxL2xqTwpLblZpUTM1OEJrWmcKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

#[test]
fn rows_are_unique_and_consistent() {
    let mut seen = BTreeSet::new();
    for kind in CATALOGUE {
        let r = &kind.resource;
        assert!(seen.insert((r.group, r.version, r.plural)), "{} is there twice", r.plural);
        assert!(kind.type_name.ends_with(&format!(".{}", r.kind)), "{}", kind.type_name);
        assert_eq!(kind.list_kind, format!("{}List", r.kind));
        assert_eq!(kind.is_stored(), kind.supports("watch"), "{}", r.plural);
        assert!(kind.subresources.is_sorted_by_key(|s| s.name), "{}", r.plural);
    }
}

#[test]
fn a_row_has_as_many_cells_as_columns() {
    for kind in CATALOGUE {
        let cells = kind.row(&json!({"metadata": {"name": "x"}}), Timestamp::UNIX_EPOCH);
        // Upstream tells the age of an IPAddress without a column for it.
        let more = usize::from(kind.resource.plural == "ipaddresses");
        assert_eq!(cells.len(), kind.columns().len() + more, "{}", kind.resource.plural);
    }
}

#[test]
fn both_events_are_stored_once() {
    let kind = by_resource("events.k8s.io", "v1", "events").expect("is in the catalogue");
    assert_eq!(kind.stored().resource, resource::EVENTS);
}

/// The least a user may write of each stored kind.
fn samples() -> Vec<(Resource, Value)> {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let autoscaler = json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let event = json!({"type": "Normal", "involvedObject": {"namespace": "n", "kind": "Pod", "name": "p"}});
    let event_v1 = json!({"type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "action": "a", "reason": "r",
        "reportingController": "c", "reportingInstance": "i", "regarding": {"namespace": "n", "kind": "Pod"}});
    let role_ref = json!({"roleRef": {"kind": "ClusterRole", "name": "r"}});
    let none = json!({});
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let match_pods = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods"]}]});
    let validating_policy =
        json!({"spec": {"matchConstraints": match_pods, "validations": [{"expression": "true"}]}});
    let mutating_policy = json!({"spec": {"matchConstraints": match_pods, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/spec'}]"}}]}});
    let webhooks = json!({"webhooks": [{"name": "a.e.com", "clientConfig": {"url": "https://e.com"},
        "sideEffects": "None", "admissionReviewVersions": ["v1"]}]});
    let definition = json!({"spec": {"group": "e.com", "scope": "Namespaced",
        "names": {"plural": "xs", "kind": "X"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let claim_spec =
        json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}});
    vec![
        (resource::CONFIG_MAPS, json!({"data": {"k": "v"}})),
        (
            resource::ENDPOINTS,
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]}),
        ),
        (resource::EVENTS, event),
        (resource::NAMESPACES, none.clone()),
        (resource::NODES, json!({"status": {"capacity": {"cpu": "1"}}})),
        (resource::PODS, json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})),
        (resource::SECRETS, json!({"stringData": {"k": "v"}})),
        (resource::SERVICE_ACCOUNTS, none.clone()),
        (resource::SERVICES, json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})),
        (resource::DEPLOYMENTS, workload.clone()),
        (resource::REPLICA_SETS, workload.clone()),
        (resource::LIMIT_RANGES, json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}})),
        (resource::POD_TEMPLATES, json!({"template": template})),
        (resource::REPLICATION_CONTROLLERS, json!({"spec": {"template": template}})),
        (resource::RESOURCE_QUOTAS, json!({"spec": {"hard": {"pods": "1"}}})),
        (resource::CONTROLLER_REVISIONS, json!({"data": {"spec": {}}, "revision": 1})),
        (resource::DAEMON_SETS, workload.clone()),
        (resource::STATEFUL_SETS, workload),
        (resource::HORIZONTAL_POD_AUTOSCALERS, autoscaler.clone()),
        (resource::HORIZONTAL_POD_AUTOSCALERS_V1, autoscaler),
        (resource::CRON_JOBS, json!({"spec": {"schedule": "@daily", "jobTemplate": job}})),
        (resource::JOBS, job),
        (resource::POD_DISRUPTION_BUDGETS, json!({"spec": {"minAvailable": 1}})),
        (resource::EVENTS_V1, event_v1),
        (resource::CLUSTER_ROLE_BINDINGS, role_ref.clone()),
        (resource::CLUSTER_ROLES, json!({"rules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})),
        (resource::ROLE_BINDINGS, role_ref),
        (resource::ROLES, json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]})),
        (resource::PRIORITY_CLASSES, json!({"value": 7})),
        (resource::LEASES, json!({"spec": {"leaseDurationSeconds": 40}})),
        (
            resource::ENDPOINT_SLICES,
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        ),
        (resource::PERSISTENT_VOLUME_CLAIMS, claim.clone()),
        (
            resource::PERSISTENT_VOLUMES,
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
        ),
        (resource::MUTATING_ADMISSION_POLICIES, mutating_policy),
        (resource::MUTATING_ADMISSION_POLICY_BINDINGS, json!({"spec": {"policyName": "p"}})),
        (resource::MUTATING_WEBHOOK_CONFIGURATIONS, webhooks.clone()),
        (resource::VALIDATING_ADMISSION_POLICIES, validating_policy),
        (
            resource::VALIDATING_ADMISSION_POLICY_BINDINGS,
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        (resource::VALIDATING_WEBHOOK_CONFIGURATIONS, webhooks),
        (resource::CUSTOM_RESOURCE_DEFINITIONS, definition),
        (
            resource::API_SERVICES,
            json!({"spec": {"group": "e.com", "version": "v1", "groupPriorityMinimum": 1,
            "versionPriority": 1}}),
        ),
        (
            resource::CERTIFICATE_SIGNING_REQUESTS,
            json!({"spec": {"request": REQUEST, "usages": ["client auth"],
            "signerName": "e.com/s"}}),
        ),
        (resource::FLOW_SCHEMAS, json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}})),
        (
            resource::PRIORITY_LEVEL_CONFIGURATIONS,
            json!({"spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Reject"}}}}),
        ),
        (resource::INGRESS_CLASSES, json!({"spec": {"controller": "e.com/c"}})),
        (
            resource::INGRESSES,
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        ),
        (
            resource::IP_ADDRESSES,
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
        ),
        (resource::NETWORK_POLICIES, json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}})),
        (resource::SERVICE_CIDRS, json!({"spec": {"cidrs": ["10.0.0.0/24"]}})),
        (resource::RUNTIME_CLASSES, json!({"handler": "h"})),
        (resource::DEVICE_CLASSES, none.clone()),
        (resource::RESOURCE_CLAIM_TEMPLATES, json!({"spec": claim_spec.clone()})),
        (resource::RESOURCE_CLAIMS, claim_spec),
        (
            resource::RESOURCE_SLICES,
            json!({"spec": {"driver": "e.com", "nodeName": "n", "pool": {"name": "p",
            "resourceSliceCount": 1}}}),
        ),
        (resource::CSI_DRIVERS, none.clone()),
        (resource::CSI_NODES, json!({"spec": {"drivers": [{"name": "e.com", "nodeID": "n"}]}})),
        (resource::CSI_STORAGE_CAPACITIES, json!({"storageClassName": "c", "capacity": "1Gi"})),
        (resource::STORAGE_CLASSES, json!({"provisioner": "e.com/p"})),
        (
            resource::VOLUME_ATTACHMENTS,
            json!({"spec": {"attacher": "e.com", "nodeName": "n",
            "source": {"persistentVolumeName": "v"}}}),
        ),
        (resource::VOLUME_ATTRIBUTES_CLASSES, json!({"driverName": "e.com", "parameters": {"k": "v"}})),
    ]
}

/// A few kinds are named after what they hold.
fn sample_name(resource: &Resource) -> &'static str {
    match *resource {
        resource::CUSTOM_RESOURCE_DEFINITIONS => "xs.e.com",
        resource::API_SERVICES => "v1.e.com",
        resource::IP_ADDRESSES => "10.0.0.1",
        _ => "x",
    }
}

/// Every sample as it is right after its creation, with its row.
fn created() -> Vec<(&'static Kind, Value)> {
    let create = |(resource, mut obj): (Resource, Value)| {
        let kind =
            by_resource(resource.group, resource.version, resource.plural).expect("is in the catalogue");
        obj["metadata"] =
            json!({"name": sample_name(&resource), "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"});
        if resource.namespaced {
            obj["metadata"]["namespace"] = json!("n");
        }
        kind.default(&mut obj);
        kind.prepare_for_create(&mut obj);
        (kind, obj)
    };
    samples().into_iter().map(create).collect()
}

#[test]
fn every_stored_kind_has_a_sample_that_is_valid() {
    let stored = CATALOGUE.iter().filter(|kind| kind.is_stored()).count();
    assert_eq!(created().len(), stored);
    for (kind, obj) in created() {
        assert_eq!(kind.validate(&obj), [], "{}", kind.resource.plural);
    }
}

#[test]
fn defaulting_twice_is_defaulting_once() {
    for (kind, obj) in created() {
        let mut again = obj.clone();
        kind.default(&mut again);
        assert_eq!(again, obj, "{}", kind.resource.plural);
    }
}

#[test]
fn an_update_that_changes_nothing_changes_nothing() {
    for (kind, mut old) in created() {
        old["metadata"]["resourceVersion"] = json!("1");
        let mut obj = old.clone();
        kind.prepare_for_update(&mut obj, &old);
        assert_eq!(obj, old, "{}", kind.resource.plural);
        assert_eq!(kind.validate_update(&obj, &old), [], "{}", kind.resource.plural);
        kind.prepare_for_status_update(&mut obj, &old);
        assert_eq!(obj, old, "{}", kind.resource.plural);
        assert_eq!(kind.validate_status_update(&obj, &old), [], "{}", kind.resource.plural);
    }
}

#[test]
fn selectable_fields_are_the_ones_announced() {
    for (kind, obj) in created() {
        let fields: Vec<&str> = kind.strategy.selectable_fields(&obj).iter().map(|(name, _)| *name).collect();
        assert_eq!(fields, kind.strategy.selectable_field_names(), "{}", kind.resource.plural);
        assert_eq!(
            kind.selectable_field(&obj, "metadata.name").as_deref(),
            Some(sample_name(&kind.resource))
        );
    }
}

/// A kind as the table of upstream's facts spells it.
fn spelled(kind: &Kind) -> String {
    let r = &kind.resource;
    let scope = if r.namespaced { "namespaced" } else { "cluster" };
    let list = |names: &[&str]| if names.is_empty() { "-".to_owned() } else { names.join(",") };
    let verbs = if kind.verbs == ALL { "*".to_owned() } else { kind.verbs.join(",") };
    let (short, categories) = (list(&kind.short_names), list(&kind.categories));
    let mut text = format!("{} {} {} {scope} {verbs} {short} {categories}\n", r.plural, r.kind, r.singular);
    for sub in kind.subresources.iter() {
        let version = if sub.group.is_empty() || sub.group == r.group {
            String::new()
        } else {
            format!("{}/{}.", sub.group, sub.version)
        };
        text.push_str(&format!("  {} {version}{} {}\n", sub.name, sub.kind, sub.verbs.join(",")));
    }
    text
}

#[test]
fn the_catalogue_serves_what_upstream_serves() {
    let mut expect: BTreeSet<String> = BTreeSet::new();
    let mut place = String::new();
    let mut entry = String::new();
    for line in include_str!("upstream.txt").lines().filter(|line| !line.starts_with('#')).chain(["[]"]) {
        if !line.starts_with("  ") && !entry.is_empty() {
            expect.insert(format!("{place} {}", std::mem::take(&mut entry)));
        }
        if line.starts_with('[') {
            place = line.to_owned();
        } else {
            entry.push_str(&format!("{line}\n"));
        }
    }
    let served: BTreeSet<String> =
        CATALOGUE.iter().map(|kind| format!("[{}] {}", kind.resource.api_version(), spelled(kind))).collect();
    let missing: Vec<&String> = expect.difference(&served).collect();
    let surplus: Vec<&String> = served.difference(&expect).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}\nsurplus {surplus:#?}");
}
