//! A volume's way through the services, with real mounts and devices.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use csi::v1::controller_server::Controller;
use csi::v1::node_server::Node;
use csi::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest,
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::{Code, Request};

use super::*;

const SIZE: i64 = 1 << 20;

fn driver(root: &Path) -> Driver {
    let settings = Settings {
        name: "d.example".into(),
        node_id: "here".into(),
        state_dir: root.join("state"),
        volumes_max: 0,
    };
    Driver::new(settings).expect("opens")
}

async fn create(driver: &Driver, name: &str, access_type: AccessType) {
    let capability = VolumeCapability { access_type: Some(access_type), access_mode: None };
    let request = CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(CapacityRange { required_bytes: SIZE, limit_bytes: 0 }),
        volume_capabilities: vec![capability],
        ..Default::default()
    };
    driver.create_volume(Request::new(request)).await.expect("makes");
}

async fn stage(driver: &Driver, id: &str, place: &Path) {
    let (volume_id, staging_target_path) = (id.to_owned(), place.display().to_string());
    let request = NodeStageVolumeRequest { volume_id, staging_target_path, ..Default::default() };
    driver.node_stage_volume(Request::new(request)).await.expect("stages");
}

async fn publish(driver: &Driver, id: &str, place: &Path, context: HashMap<String, String>, readonly: bool) {
    let (volume_id, target_path) = (id.to_owned(), place.display().to_string());
    let request = NodePublishVolumeRequest {
        volume_id,
        target_path,
        volume_context: context,
        readonly,
        ..Default::default()
    };
    driver.node_publish_volume(Request::new(request)).await.expect("publishes");
}

async fn withdraw(driver: &Driver, id: &str, target: &Path, staging: &Path) {
    let (volume_id, target_path) = (id.to_owned(), target.display().to_string());
    let request = NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path };
    driver.node_unpublish_volume(Request::new(request)).await.expect("withdraws");
    let staging_target_path = staging.display().to_string();
    let request = NodeUnstageVolumeRequest { volume_id, staging_target_path };
    driver.node_unstage_volume(Request::new(request)).await.expect("unstages");
}

#[tokio::test]
async fn a_folder_is_seen_by_a_pod_read_only_if_so_asked_and_keeps_its_data() {
    let root = tempfile::tempdir().expect("a folder");
    let (driver, staging, target) =
        (driver(root.path()), root.path().join("staging"), root.path().join("target"));
    create(&driver, "v", AccessType::Mount(MountVolume::default())).await;
    for _ in 0..2 {
        stage(&driver, "v", &staging).await;
        publish(&driver, "v", &target, HashMap::new(), false).await;
    }
    fs::write(target.join("x"), vec![1; 8192]).expect("writes");
    let request = NodeGetVolumeStatsRequest {
        volume_id: "v".into(),
        volume_path: target.display().to_string(),
        ..Default::default()
    };
    let stats = driver.node_get_volume_stats(Request::new(request)).await.expect("tells").into_inner();
    assert!(stats.usage[0].total == SIZE && stats.usage[0].used >= 8192);
    withdraw(&driver, "v", &target, &staging).await;
    assert!(!target.exists() && !staging.exists());
    publish(&driver, "v", &target, HashMap::new(), true).await;
    assert!(target.join("x").exists() && fs::write(target.join("y"), "").is_err());
    withdraw(&driver, "v", &target, &staging).await;
    let request = DeleteVolumeRequest { volume_id: "v".into(), ..Default::default() };
    driver.delete_volume(Request::new(request)).await.expect("deletes");
    assert_eq!(driver.volume("v").expect_err("gone").code(), Code::NotFound);
}

#[tokio::test]
async fn a_device_holds_data_and_grows_while_it_is_used() {
    let root = tempfile::tempdir().expect("a folder");
    let (driver, staging, target) =
        (driver(root.path()), root.path().join("staging"), root.path().join("target"));
    create(&driver, "b", AccessType::Block(BlockVolume {})).await;
    stage(&driver, "b", &staging).await;
    publish(&driver, "b", &target, HashMap::new(), false).await;
    fs::File::options().write(true).open(&target).expect("opens").write_all(b"data").expect("writes");
    let request = ControllerExpandVolumeRequest {
        volume_id: "b".into(),
        capacity_range: Some(CapacityRange { required_bytes: 2 * SIZE, limit_bytes: 0 }),
        ..Default::default()
    };
    driver.controller_expand_volume(Request::new(request)).await.expect("grows");
    let request = NodeExpandVolumeRequest { volume_id: "b".into(), ..Default::default() };
    driver.node_expand_volume(Request::new(request)).await.expect("grows");
    let mut content = Vec::new();
    fs::File::open(&target).expect("opens").read_to_end(&mut content).expect("reads");
    assert_eq!((content.len(), &content[..4]), (2 << 20, b"data".as_slice()));
    withdraw(&driver, "b", &target, &staging).await;
    let data = driver.volumes.data(&driver.volume("b").expect("there")).expect("a path");
    assert_eq!(loop_device::of(&data).expect("reads"), None);
}

#[tokio::test]
async fn a_pods_own_volume_comes_and_goes_with_it() {
    let root = tempfile::tempdir().expect("a folder");
    let (driver, target) = (driver(root.path()), root.path().join("target"));
    let context = HashMap::from([("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())]);
    publish(&driver, "csi-1", &target, context, false).await;
    fs::write(target.join("x"), "1").expect("writes");
    withdraw(&driver, "csi-1", &target, &root.path().join("staging")).await;
    assert!(driver.volume("csi-1").is_err() && !target.exists());
}
