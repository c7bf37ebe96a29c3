//! What the operator turns off, and what can be asked and set while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use client::debug::SetVerbosity;

use super::fixture::Fixture;
use crate::enablement::Enablement;

#[tokio::test]
async fn what_is_turned_off_is_neither_served_nor_told_of() {
    let off = ["batch/v1=false", "apps/v1/daemonsets=false"];
    let api = Fixture::with(|config| config.enablement = Enablement::parse(off).expect("is valid")).await;
    let code = async |path: &str| api.send(&format!("GET {path}"), "").await.code;
    assert_eq!(code("/apis/batch/v1/namespaces/default/jobs").await, 404);
    assert_eq!(code("/apis/batch/v1").await, 404);
    assert_eq!(code("/openapi/v3/apis/batch/v1").await, 404);
    assert_eq!(code("/apis/apps/v1/namespaces/default/daemonsets").await, 404);
    assert_eq!(code("/apis/apps/v1/namespaces/default/deployments").await, 200);
    assert_eq!(code("/apis/apiregistration.k8s.io/v1/apiservices/v1.batch").await, 404);
    let groups = api.send("GET /apis", "").await.json().to_string();
    assert!(groups.contains("\"apps\"") && !groups.contains("\"batch\""), "{groups}");
    let list = api.send("GET /apis/apps/v1", "").await.json().to_string();
    assert!(list.contains("\"deployments\"") && !list.contains("daemonsets"), "{list}");
    let index = api.send("GET /openapi/v3", "").await.json().to_string();
    assert!(index.contains("apis/apps/v1") && !index.contains("apis/batch/v1"), "{index}");
}

#[tokio::test]
async fn how_much_is_logged_can_be_set() {
    let level = Arc::new(AtomicI32::new(0));
    let set = level.clone();
    let api = Fixture::with(|config| {
        config.set_verbosity = Some(SetVerbosity::new(move |level| set.store(level, Ordering::Relaxed)));
    })
    .await;
    let answer = api.send("PUT /debug/flags/v", "4").await;
    assert_eq!((answer.code, &*answer.bytes), (200, &b"successfully set klog.logging.verbosity to 4"[..]));
    assert_eq!(level.load(Ordering::Relaxed), 4);
    assert_eq!(api.send("PUT /debug/flags/v", "much").await.code, 400);
    assert_eq!(api.send("GET /debug/flags/v", "").await.code, 406);
    assert_eq!(api.send("PUT /debug/flags/w", "4").await.code, 405);
}

#[tokio::test]
async fn the_program_tells_how_it_was_started_and_makes_no_profiles() {
    let silent = Fixture::new().await;
    assert_eq!(silent.send("GET /debug/pprof/cmdline", "").await.code, 404, "it is not to tell");
    let api = Fixture::with(|config| config.set_verbosity = Some(SetVerbosity::new(|_| ()))).await;
    let answer = api.send("GET /debug/pprof/cmdline", "").await;
    let program = std::env::args().next().expect("a name");
    assert!(answer.bytes.starts_with(program.as_bytes()));
    assert_eq!(api.send("GET /debug/pprof", "").await.headers["location"], "/debug/pprof/");
    assert_eq!(api.send("GET /debug/pprof/", "").await.code, 200);
    for absent in ["/debug/pprof/profile", "/debug/pprof/heap", "/logs/", "/debug/nothing"] {
        assert_eq!(api.send(&format!("GET {absent}"), "").await.code, 404, "{absent}");
    }
}
