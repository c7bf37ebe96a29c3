//! The runtime's word on itself, and what `--verbose` shows of each thing.

use ::runtime::cri::*;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_tells_version_conditions_and_configuration() {
    let mut node = Node::new().await;
    let client = &mut node.cri.runtime;
    let version = client.version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("coxswain", "v1"));
    let status = client.status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    let conditions: Vec<(&str, bool)> = conditions.iter().map(|c| (c.r#type.as_str(), c.status)).collect();
    assert_eq!(conditions, [("RuntimeReady", true), ("NetworkReady", true)]);
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["cgroupRoot"], node.cgroup_root.as_str());
    let client = &mut node.cri.runtime;
    let config = client.runtime_config(RuntimeConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(config.linux.unwrap().cgroup_driver(), CgroupDriver::Cgroupfs);
    let network_config = Some(NetworkConfig { pod_cidr: "10.0.0.0/24".to_owned() });
    let update =
        UpdateRuntimeConfigRequest { runtime_config: Some(::runtime::cri::RuntimeConfig { network_config }) };
    client.update_runtime_config(update).await.unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbose_answers_hold_what_debugging_needs() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let json = |info: &std::collections::HashMap<String, String>| {
        serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()
    };
    let client = &mut node.cri.runtime;
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
    let status = client.pod_sandbox_status(request).await.unwrap().into_inner();
    let info = json(&status.info);
    assert!(info["pid"].as_i64().unwrap() > 1);
    assert_eq!(info["config"]["hostname"], "pod-host");
    assert_eq!(status.containers_statuses.len(), 1);
    let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let info = json(&client.container_status(request).await.unwrap().into_inner().info);
    assert!(info["pid"].as_i64().unwrap() > 1);
    assert_eq!(info["sandboxID"], sandbox.as_str());
    assert_eq!(info["config"]["log_path"], "main.log");
    let image = Some(ImageSpec { image: IMAGE.to_owned(), ..Default::default() });
    let request = ImageStatusRequest { image, verbose: true };
    let info = json(&node.cri.images.image_status(request).await.unwrap().into_inner().info);
    assert_eq!(info["imageSpec"]["config"]["Cmd"][0], "/bin/sh");
    let request = ContainerStatusRequest { container_id: id, verbose: false };
    assert!(node.cri.runtime.container_status(request).await.unwrap().into_inner().info.is_empty());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_in_the_same_process_needs_no_socket() {
    let node = Node::new().await;
    let mut client = node.runtime.clone().in_process().runtime;
    let version = client.version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!(version.runtime_name, "coxswain");
    node.finish().await;
}
