//! A driver on a real socket, whose volumes are mounted for real, and an API server that notes what it is told.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use api::view::core::{PersistentVolume, Pod};
use apimachinery::{Value, json};
use bytes::{BufMut, Bytes, BytesMut};
use client::Client;
use client::transport::{Body, ResponseFuture, Transport};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::proto::{
    Capability, Empty, NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodePublishVolumeRequest,
    NodeServiceCapability, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    PluginInfo, Rpc,
};
use super::*;
use crate::volumes::Context;
use crate::volumes::downward::Allocatable;

const NONE: Option<&str> = None;

/// Does what the call asks for, as a driver would.
fn perform(method: &str, message: &[u8]) -> Vec<u8> {
    match method {
        "GetInfo" => {
            let versions = vec!["1.0.0".to_owned()];
            let (kind, name) = ("CSIPlugin".to_owned(), "d".to_owned());
            PluginInfo { kind, name, endpoint: String::new(), supported_versions: versions }.encode_to_vec()
        }
        "NodeGetInfo" => NodeGetInfoResponse { node_id: "id".into(), ..Default::default() }.encode_to_vec(),
        "NodeGetCapabilities" => {
            let rpc = Some(Rpc { kind: Capability::StageUnstageVolume.into() });
            NodeGetCapabilitiesResponse { capabilities: vec![NodeServiceCapability { rpc }] }.encode_to_vec()
        }
        "NodeStageVolume" => {
            let place = NodeStageVolumeRequest::decode(message).expect("a message").staging_target_path;
            if !Path::new(&place).join("data").exists() {
                mount(Some("tmpfs"), place.as_str(), Some("tmpfs"), MsFlags::empty(), NONE).expect("mounts");
                fs::write(Path::new(&place).join("data"), "1").expect("writes");
            }
            Empty {}.encode_to_vec()
        }
        "NodePublishVolume" => {
            let request = NodePublishVolumeRequest::decode(message).expect("a message");
            let (from, to) = (request.staging_target_path.as_str(), request.target_path.as_str());
            fs::create_dir_all(to).expect("makes");
            mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).expect("binds");
            Empty {}.encode_to_vec()
        }
        "NodeUnpublishVolume" => {
            let place = NodeUnpublishVolumeRequest::decode(message).expect("a message").target_path;
            umount2(place.as_str(), MntFlags::empty()).expect("unmounts");
            Empty {}.encode_to_vec()
        }
        "NodeUnstageVolume" => {
            let place = NodeUnstageVolumeRequest::decode(message).expect("a message").staging_target_path;
            umount2(place.as_str(), MntFlags::empty()).expect("unmounts");
            Empty {}.encode_to_vec()
        }
        _ => Empty {}.encode_to_vec(),
    }
}

/// Serves the driver, and tells of each call once it is answered.
async fn serve(listener: UnixListener, calls: mpsc::UnboundedSender<String>) {
    while let Ok((stream, _)) = listener.accept().await {
        let calls = calls.clone();
        let answer = move |request: Request<Incoming>| {
            let calls = calls.clone();
            async move {
                let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let sent = request.into_body().collect().await.expect("a body").to_bytes();
                // Before each message: a byte that says whether it is compressed, and four of its length.
                let message = perform(&method, &sent[5..]);
                let mut framed = BytesMut::new();
                framed.put_u8(0);
                framed.put_u32(u32::try_from(message.len()).expect("it is small"));
                framed.extend_from_slice(&message);
                let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), 0.into())]);
                let frames =
                    [Frame::data(framed.freeze()), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                calls.send(method).ok();
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Response::builder().header("content-type", "application/grpc").body(body)
            }
        };
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
        tokio::spawn(connection);
    }
}

/// Knows the driver, its attachment and an empty CSINode; notes what is written.
#[derive(Default)]
struct Api {
    written: Mutex<Vec<(String, Value)>>,
}

/// The way to it.
struct Way(Arc<Api>);

impl Transport for Way {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if request.method() != http::Method::GET {
                let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
                self.0.written.lock().expect("no panic").push((path.clone(), body));
            }
            let answer = if path.contains("/volumeattachments/") {
                json!({"metadata": {"name": "a"}, "status": {"attached": true}})
            } else if path.contains("/csidrivers/") {
                json!({"metadata": {"name": "d"}, "spec": {"attachRequired": true}})
            } else {
                json!({"metadata": {"name": "n"}, "spec": {}})
            };
            let body: Body =
                Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(200).body(body).expect("a response"))
        })
    }
}

impl Api {
    fn last(&self, path: &str, field: &str) -> Value {
        let written = self.written.lock().expect("no panic");
        let found = written.iter().rev().find(|(at, _)| at.ends_with(path));
        found.and_then(|(_, body)| body.pointer(field).cloned()).unwrap_or_default()
    }
}

fn pod(uid: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "x", "uid": uid}})).expect("a pod")
}

async fn told(calls: &mut mpsc::UnboundedReceiver<String>, method: &str) {
    while calls.recv().await.expect("the driver lives") != method {}
}

fn staged(root: &Path) -> PathBuf {
    let name = api::storage::csi::hex_digest(&["h"]);
    root.join("plugins/kubernetes.io/csi/d").join(name)
}

#[tokio::test]
async fn a_driver_registers_and_its_volume_is_staged_once_for_all_pods_and_taken_away_with_the_last() {
    let root = std::env::temp_dir().join(format!("csi-{}", std::process::id()));
    let registry = root.join("plugins_registry");
    fs::create_dir_all(&registry).expect("makes");
    let (sender, mut calls) = mpsc::unbounded_channel();
    tokio::spawn(serve(UnixListener::bind(registry.join("d.sock")).expect("binds"), sender));
    let api = Arc::new(Api::default());
    let client = Client::new(Arc::new(Way(api.clone())), "kubelet");
    let drivers = Arc::<Drivers>::default();
    let registry =
        Registry { drivers: drivers.clone(), client: client.clone(), node_name: "n".into(), dir: registry };
    let following = tokio::spawn(registry.run());
    told(&mut calls, "NotifyRegistrationStatus").await;
    assert_eq!(api.last("/csinodes/n", "/spec/drivers/0/nodeID"), "id");

    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}}}))
    .expect("a volume");
    let source = volume.spec.csi.clone().expect("CSI");
    let cx = Context {
        client: &client,
        root: &root,
        local_path_root: None,
        csi_drivers: &drivers,
        node_name: "n",
        allocatable: Allocatable { milli_cpu: 0, memory_bytes: 0, ephemeral_storage_bytes: 0 },
        pod_ips: &[],
        host_ip: "",
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    for uid in ["1", "2", "2"] {
        let place = set_up(&cx, &pod(uid), &volume, &source).await.expect("mounts");
        assert!(place.join("data").exists());
    }
    assert_eq!(api.last("/nodes/n/status", "/status/volumesInUse"), json!(["kubernetes.io/csi/d^h"]));
    tear_down(&client, &drivers, &root, "n", "1").await.expect("unmounts");
    assert!(staged(&root).join("globalmount/data").exists());
    tear_down(&client, &drivers, &root, "n", "2").await.expect("unmounts");
    assert!(!staged(&root).exists());
    assert_eq!(api.last("/nodes/n/status", "/status/volumesInUse"), json!([]));
    following.abort();
    fs::remove_dir_all(root).expect("removes");
}
