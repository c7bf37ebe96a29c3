//! What the audit log tells of requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::{Value, json};
use auth::UserInfo;

use super::fixture::{Fixture, config_map, contains};
use crate::audit::Auditor;
use crate::audit::log::{LogConfig, LogFile};
use crate::audit::policy::Policy;
use crate::audit::sink::{Backend, Destination, Format, Mode};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, users: [admin, ann], omitManagedFields: true, resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, users: [admin], resources: [{group: "", resources: [secrets]}]}
"#;

/// A server that tells of its requests in a file, in this folder.
struct Audited {
    api: Fixture,
    folder: PathBuf,
    /// From when it is set, the server panics when it makes a uid.
    breaks: Arc<AtomicBool>,
}

impl Audited {
    async fn new(name: &str) -> Audited {
        let breaks = Arc::<AtomicBool>::default();
        let folder = std::env::temp_dir().join(format!("audited-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (policy, path) = (folder.join("policy.yaml"), folder.join("audit.log"));
        std::fs::write(&policy, POLICY).expect("writes");
        let policy = Policy::load(&policy).expect("a policy");
        let file = LogFile::open(LogConfig { path, ..LogConfig::default() }).expect("opens");
        let backend = Backend::log(file, Format::Json);
        let backends = vec![Destination { backend, mode: Mode::Blocking, truncation: None }];
        let api = Fixture::with(|config| {
            config.auditor = Some(Auditor::new(policy, backends, config.clock.clone()));
            let (breaks, random) = (breaks.clone(), config.random.clone());
            config.random = Arc::new(move |buffer| {
                assert!(!breaks.load(Ordering::Relaxed), "no randomness");
                random(buffer);
            });
        })
        .await;
        Audited { api, folder, breaks }
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("audit.log")).expect("reads");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).expect("removes");
    }
}

fn check(event: &Value, expect: Value) {
    assert!(contains(event, &expect), "{event:#} lacks {expect:#}");
}

const PATH: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_write_is_told_of_with_what_was_sent_and_answered() {
    let audited = Audited::new("write").await;
    audited
        .api
        .check(&format!("POST {PATH}\nAudit-ID: mine\nUser-Agent: test"), config_map("a"), 201, json!({}))
        .await;
    let [event] = &audited.events()[..] else { panic!("{:?}", audited.events()) };
    check(
        event,
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "mine",
            "stage": "ResponseComplete", "requestURI": PATH, "verb": "create", "user": {"username": "admin"},
            "sourceIPs": ["127.0.0.1"], "userAgent": "test",
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201}, "requestObject": {"data": {"a": "1"}},
            "responseObject": {"kind": "ConfigMap", "metadata": {"name": "a", "managedFields": null}},
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}}),
    );
}

#[tokio::test]
async fn refusals_and_patches_are_told_of_and_what_the_policy_omits_is_not() {
    let audited = Audited::new("refuse").await;
    let api = &audited.api;
    let ann = api.server.in_process(UserInfo::new("ann", [""; 0]));
    assert_eq!(api.send_by(&*ann, &format!("GET {PATH}/a"), "").await.code, 403);
    let patch = format!("PATCH {PATH}/none\nContent-Type: application/merge-patch+json");
    assert_eq!(api.send(&patch, r#"{"data":{"b":"2"}}"#).await.code, 404);
    assert_eq!(api.send("GET /api/v1/namespaces/default/secrets", "").await.code, 200);
    assert_eq!(api.send("GET /api/v1/namespaces/default/pods", "").await.code, 200);
    let [refused, patched, secrets] = &audited.events()[..] else { panic!("{:?}", audited.events()) };
    check(
        refused,
        json!({"responseStatus": {"status": "Failure", "reason": "Forbidden", "code": 403},
        "annotations": {"authorization.k8s.io/decision": "forbid"}}),
    );
    check(
        patched,
        json!({"verb": "patch", "requestObject": {"data": {"b": "2"}}, "responseStatus": {"code": 404}}),
    );
    check(
        secrets,
        json!({"level": "Metadata", "verb": "list", "responseObject": null, "requestObject": null}),
    );
}

#[tokio::test]
async fn a_watch_is_told_of_when_it_begins_and_when_it_ends() {
    let audited = Audited::new("watch").await;
    let stream = audited.api.stream(&format!("GET {PATH}?watch=true")).await;
    check(
        &audited.events()[0],
        json!({"stage": "ResponseStarted", "verb": "watch", "responseStatus": {"code": 200}}),
    );
    drop(stream);
    while audited.events().len() < 2 {
        tokio::task::yield_now().await;
    }
    check(&audited.events()[1], json!({"stage": "ResponseComplete", "verb": "watch"}));
}

#[tokio::test]
async fn acting_as_somebody_else_is_told_of() {
    let audited = Audited::new("as").await;
    audited.api.send(&format!("GET {PATH}\nImpersonate-User: bob"), "").await;
    check(
        &audited.events()[0],
        json!({"user": {"username": "admin"}, "impersonatedUser": {"username": "bob"}}),
    );
}

#[tokio::test]
async fn a_panic_is_told_of_and_answered() {
    let audited = Audited::new("panic").await;
    audited.breaks.store(true, Ordering::Relaxed);
    let failed = audited.api.send(&format!("POST {PATH}\nAudit-ID: mine"), config_map("a").to_string()).await;
    assert_eq!(failed.code, 500);
    let [event] = &audited.events()[..] else { panic!("{:?}", audited.events()) };
    check(
        event,
        json!({"stage": "Panic", "responseStatus": {"code": 500, "message": "APIServer panic'd: no randomness"}}),
    );
}
