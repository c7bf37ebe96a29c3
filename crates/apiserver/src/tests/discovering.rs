//! Discovery, version, health, OpenAPI, metrics.

use std::collections::BTreeMap;

use apimachinery::{Value, json};

use super::fixture::Fixture;

#[tokio::test]
async fn clients_find_what_is_served() {
    let api = Fixture::new().await;
    let get = async |path: &str, expect| api.check(&format!("GET {path}"), json!(null), 200, expect).await;
    get("/api", json!({"kind": "APIVersions", "versions": ["v1"]})).await;
    get("/apis", json!({"kind": "APIGroupList"})).await;
    get("/apis/apps", json!({"kind": "APIGroup", "name": "apps"})).await;
    get("/api/v1", json!({"kind": "APIResourceList", "groupVersion": "v1"})).await;
    get("/apis/apps/v1", json!({"groupVersion": "apps/v1"})).await;
    get("/version", json!({"major": "1", "minor": "36"})).await;
    get("/openapi/v2", json!({"swagger": "2.0"})).await;
    get("/openapi/v3", json!({})).await;
    get("/openapi/v3/apis/apps/v1", json!({"openapi": "3.0.0"})).await;
    for nowhere in
        ["/apis/nothing", "/apis/nothing/v1", "/apis/nothing/v1/things", "/nothing", "/livez/nothing"]
    {
        let answer = api.send(&format!("GET {nowhere}"), "").await;
        assert_eq!((answer.code, &answer.bytes[..]), (404, &b"404 page not found\n"[..]), "{nowhere}");
    }
    api.check(
        "GET /apis/apps/v1/nothings",
        json!(null),
        404,
        json!({"message": "the server could not find the requested resource"}),
    )
    .await;
    api.check("DELETE /api/v1/nodes/n/status", json!(null), 405, json!({})).await;
}

#[tokio::test]
async fn aggregated_discovery_names_its_media_type() {
    let api = Fixture::new().await;
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let answer = api.send(&format!("GET {path}\n{accept}"), "").await;
        assert_eq!(
            answer.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    }
}

#[tokio::test]
async fn what_a_client_has_kept_is_not_sent_again() {
    let api = Fixture::new().await;
    let index = api.send("GET /openapi/v3", "").await.json();
    let url = &index["paths"]["apis/apps/v1"]["serverRelativeURL"];
    let url = url.as_str().expect("leads to the document");
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for request in ["GET /openapi/v2".to_owned(), format!("GET {url}"), format!("GET /apis\n{accept}")] {
        let first = api.send(&request, "").await;
        let tag = first.headers["etag"].to_str().expect("is text");
        let second = api.send(&format!("{request}\nIf-None-Match: {tag}"), "").await;
        assert_eq!((first.code, second.code, second.bytes.len()), (200, 304, 0), "{request}");
    }
    assert_eq!(api.send(&format!("GET {url}"), "").await.headers["cache-control"], "public, immutable");
    let older = api.send("GET /openapi/v3/apis/apps/v1?hash=older", "").await;
    assert_eq!((older.code, older.headers["location"].to_str().expect("is text")), (301, url));
}

#[tokio::test]
async fn parts_of_the_control_plane_say_how_they_are() {
    let api = Fixture::with(|config| config.runs_control_plane = true).await;
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    let list = api.check("GET /api/v1/componentstatuses", json!(null), 200, json!({"metadata": {}})).await;
    let items = list["items"].as_array().expect("is a list");
    let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    assert!(items.iter().all(|item| item["conditions"] == healthy), "{items:#?}");
    let one = api.send("GET /api/v1/componentstatuses/scheduler", "").await;
    assert_eq!(one.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    assert_eq!(one.json()["conditions"], healthy);
    let missing = json!({"message": "componentstatus \"x\" not found"});
    api.check("GET /api/v1/componentstatuses/x", json!(null), 404, missing).await;
}

#[tokio::test]
async fn health_is_told_as_a_whole_and_in_parts() {
    let api = Fixture::new().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        assert_eq!(api.send(&format!("GET {path}"), "").await.bytes, "ok", "{path}");
    }
    let verbose = api.send("GET /readyz?verbose", "").await;
    assert!(verbose.bytes.ends_with(b"readyz check passed\n"));
    assert!(verbose.bytes.starts_with(b"[+]ping ok\n"));
}

#[tokio::test]
async fn the_server_says_of_itself_what_it_is() {
    let api = Fixture::new().await;
    let index = api.check("GET /", json!(null), 200, json!({})).await;
    for page in ["/statusz", "/flagz"] {
        assert!(index["paths"].as_array().expect("a list").contains(&json!(page)), "{index}");
    }
    let state = api.send("GET /statusz", "").await.bytes;
    let state = String::from_utf8_lossy(&state).into_owned();
    assert!(state.starts_with("\napiserver statusz\n"), "{state}");
    assert!(state.ends_with("\nPaths: /flagz /healthz /livez /metrics /readyz /version\n"), "{state}");
    let flags = api.send("GET /flagz", "").await.bytes;
    assert!(flags.starts_with(b"\napiserver flagz\n"), "{flags:?}");
}

#[tokio::test]
async fn what_came_of_health_checks_is_counted() {
    let api = Fixture::new().await;
    for path in ["/livez", "/livez?exclude=etcd", "/livez/etcd"] {
        assert_eq!(api.send(&format!("GET {path}"), "").await.bytes, "ok", "{path}");
    }
    let page = api.send("GET /metrics/slis", "").await.bytes;
    let page = String::from_utf8_lossy(&page).into_owned();
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
        "kubernetes_healthchecks_total{name=\"etcd\",type=\"livez\",status=\"success\"} 1",
        "kubernetes_healthchecks_total{name=\"ping\",type=\"livez\",status=\"success\"} 2",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line} in {page}");
    }
    assert!(page.contains("\nprocess_start_time_seconds "), "{page}");
}

#[tokio::test]
async fn requests_are_counted() {
    let api = Fixture::new().await;
    api.check("GET /api/v1/pods", json!(null), 200, json!({})).await;
    let metrics = api.send("GET /metrics", "").await;
    let text = String::from_utf8_lossy(&metrics.bytes);
    assert!(text.contains("apiserver_request_total{code=\"200\",dry_run=\"\",component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1"), "{text}");
}

/// The table of the documentation: each metric with its type and whether it is served.
fn documented() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let table = include_str!("../../../../docs/metrics.md").lines();
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        Some((name, (cells.next()?, cells.next()?.trim_end_matches(" |"))))
    };
    table.filter_map(row).collect()
}

#[tokio::test]
async fn the_metrics_are_those_of_the_documentation() {
    let api = Fixture::new().await;
    let metrics = api.send("GET /metrics", "").await;
    let text = String::from_utf8_lossy(&metrics.bytes);
    let served: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let documented = documented();
    for (name, kind) in &served {
        let row = documented.get(name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(*row, (*kind, "yes"), "{name}");
    }
    for (name, _) in documented.iter().filter(|(_, row)| row.1 == "yes") {
        assert!(served.contains_key(name), "{name} is not served");
    }
}

#[tokio::test]
async fn a_second_start_brings_defaults_back_and_keeps_what_was_added() {
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user";
    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:discovery";
    let api = Fixture::new().await;
    let role = api.check(&format!("GET {ROLES}"), json!(null), 200, json!({})).await;
    let mut changed = role.clone();
    changed["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    api.check(&format!("PUT {ROLES}"), changed, 200, json!({})).await;
    let mut binding = api.check(&format!("GET {BINDINGS}"), json!(null), 200, json!({})).await;
    binding["roleRef"]["name"] = "view".into();
    binding["metadata"] = json!({"name": "system:discovery"});
    api.check(&format!("DELETE {BINDINGS}"), json!(null), 200, json!({})).await;
    api.check("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, 201, json!({})).await;
    let service = "/api/v1/namespaces/default/services/kubernetes";
    let merge = format!("PATCH {service}\nContent-Type: application/merge-patch+json");
    let ports = |target: u16| json!({"spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}]}});
    api.check(&merge, ports(1), 200, ports(1)).await;
    let api = api.restart().await;
    let after = api.check(&format!("GET {ROLES}"), json!(null), 200, json!({})).await;
    let rules = |role: &Value| role["rules"].as_array().map_or(0, Vec::len);
    assert!(rules(&after) > rules(&role), "{after}");
    assert_eq!(after["rules"][0]["resources"], json!(["pods"]));
    let reference = json!({"roleRef": {"name": "system:discovery"}});
    api.check(&format!("GET {BINDINGS}"), json!(null), 200, reference).await;
    let service = api.check(&format!("GET {service}"), json!(null), 200, json!({})).await;
    assert_ne!(service["spec"]["ports"][0]["targetPort"], 1);
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_made() {
    let api = Fixture::new().await;
    let before =
        api.check("GET /api/v1/namespaces/default/services/kubernetes", json!(null), 200, json!({})).await;
    let api = api.restart().await;
    api.check("GET /api/v1/namespaces/default/services/kubernetes", json!(null), 200, before).await;
    assert_eq!(api.send("GET /readyz", "").await.bytes, "ok");
}
