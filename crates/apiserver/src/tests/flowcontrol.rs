//! Which level and schema decide about a request, as its sender sees it.

use apimachinery::{Value, json};
use auth::UserInfo;

use super::fixture::Fixture;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";

fn schema(level: &str) -> Value {
    json!({"metadata": {"name": "mine"}, "spec": {
        "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": level},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}], "resourceRules": [{"verbs": ["*"],
            "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}})
}

/// Who decides about ann's requests, which are all forbidden.
async fn decider(server: &Fixture) -> String {
    let ann = server.server.in_process(UserInfo::new("ann", [""; 0]));
    let answer = server.send_by(&*ann, "GET /api/v1/nodes", "").await;
    assert_eq!(answer.code, 403);
    answer.headers[SCHEMA_UID].to_str().expect("a uid").to_owned()
}

async fn until_decider(server: &Fixture, uid: &str, is: bool) {
    while (decider(server).await == uid) != is {
        tokio::task::yield_now().await;
    }
}

async fn until_condition(server: &Fixture, status: &str) {
    loop {
        let schema = server.send(&format!("GET {GROUP}/flowschemas/mine"), "").await.json();
        let condition = &schema["status"]["conditions"][0];
        if condition["type"] == "Dangling" && condition["status"] == status {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_schema_decides_as_soon_as_it_and_its_level_are_there() {
    let server = Fixture::new().await;
    server.check(&format!("POST {GROUP}/flowschemas"), schema("new"), 201, json!({})).await;
    until_condition(&server, "True").await;
    let mine = server.send(&format!("GET {GROUP}/flowschemas/mine"), "").await.json();
    let uid = mine["metadata"]["uid"].as_str().expect("a uid");
    assert_ne!(decider(&server).await, uid, "one that dangles decides nothing");
    let level = json!({"metadata": {"name": "new"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    server.check(&format!("POST {GROUP}/prioritylevelconfigurations"), level, 201, json!({})).await;
    until_condition(&server, "False").await;
    until_decider(&server, uid, true).await;
    server
        .check(&format!("DELETE {GROUP}/prioritylevelconfigurations/new"), Value::Null, 200, json!({}))
        .await;
    until_condition(&server, "True").await;
    until_decider(&server, uid, false).await;
}
