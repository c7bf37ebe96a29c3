//! What is said to the driver is done, against a cluster that knows one claim.

use apimachinery::{Value, json};
use client::Transport;
use client::transport::ResponseFuture;

use super::*;

/// Knows one claim.
struct Way(Value);

impl Transport for Way {
    fn send(&self, _: http::Request<bytes::Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            use http_body_util::{BodyExt, Full};
            let body = Full::new(bytes::Bytes::from(self.0.to_string()));
            let body = body.map_err(|never| match never {}).boxed_unsync();
            Ok(http::Response::builder().status(200).body(body).expect("a response"))
        })
    }
}

fn driver(cdi_dir: &Path) -> Driver {
    let result = |driver: &str, request: &str, device: &str| json!({"driver": driver, "request": request, "pool": "n", "device": device});
    let results = json!([result("d.org", "a/sub", "device-1"), result("other.org", "b", "x")]);
    let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "status": {"allocation": {"devices": {"results": results}}}});
    let settings =
        Settings { name: "d.org".into(), node_name: "n".into(), devices: 2, cdi_dir: cdi_dir.to_owned() };
    Driver::new(settings, Client::new(Arc::new(Way(claim)), "test"))
}

fn claim(uid: &str) -> Claim {
    Claim { namespace: "n".into(), name: "c".into(), uid: uid.into() }
}

#[tokio::test]
async fn a_claims_own_devices_are_described_until_they_are_given_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let driver = driver(dir.path());
    let devices = driver.prepare(&claim("u")).await.expect("prepares");
    let [device] = devices.as_slice() else { panic!("{devices:?}") };
    assert_eq!(
        (device.request_names.as_slice(), device.device_name.as_str()),
        (&["a".to_owned()][..], "device-1")
    );
    assert_eq!(device.cdi_device_ids, ["d.org/device=u-device-1"]);
    let path = cdi::path(&driver.settings, "u");
    let spec: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    assert_eq!(spec["devices"][0]["containerEdits"]["env"], json!(["DEVICE_1=u"]));
    driver.unprepare(&claim("u")).expect("unprepares");
    assert!(!path.exists());
    driver.unprepare(&claim("u")).expect("does so again");
}

#[tokio::test]
async fn a_claim_that_was_replaced_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let why = driver(dir.path()).prepare(&claim("older")).await.expect_err("refuses");
    assert_eq!(why, "claim n/c was replaced by another");
}
