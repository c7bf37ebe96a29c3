//! Requests that cannot be met, and the codes they are refused with.

use ::runtime::CriClients;
use ::runtime::cri::*;
use tonic::{Code, Status};

use crate::harness::*;

const UNKNOWN: &str = "0123456789abcdef";

/// Calls that name what there is not, or name nothing.
async fn refusals(cri: &CriClients, id: &str) -> Vec<(&'static str, Status)> {
    let mut client = cri.runtime.clone();
    let (container_id, pod_sandbox_id) = (id.to_owned(), id.to_owned());
    let config = Some(shell("main", "exit 0"));
    let mut found = Vec::new();
    macro_rules! call {
        ($name:ident, $request:expr) => {
            found.push((stringify!($name), client.$name($request).await.map(drop).unwrap_err()))
        };
    }
    call!(
        pod_sandbox_status,
        PodSandboxStatusRequest { pod_sandbox_id: pod_sandbox_id.clone(), verbose: false }
    );
    call!(pod_sandbox_stats, PodSandboxStatsRequest { pod_sandbox_id: pod_sandbox_id.clone() });
    call!(port_forward, PortForwardRequest { pod_sandbox_id: pod_sandbox_id.clone(), port: vec![80] });
    call!(create_container, CreateContainerRequest { pod_sandbox_id, config, sandbox_config: None });
    call!(start_container, StartContainerRequest { container_id: container_id.clone() });
    call!(container_status, ContainerStatusRequest { container_id: container_id.clone(), verbose: false });
    call!(container_stats, ContainerStatsRequest { container_id: container_id.clone() });
    call!(reopen_container_log, ReopenContainerLogRequest { container_id: container_id.clone() });
    let update = UpdateContainerResourcesRequest { container_id: container_id.clone(), ..Default::default() };
    call!(update_container_resources, update);
    let exec = ExecSyncRequest { container_id: container_id.clone(), ..Default::default() };
    call!(exec_sync, exec);
    call!(exec, ExecRequest { container_id: container_id.clone(), stdout: true, ..Default::default() });
    call!(attach, AttachRequest { container_id, stdout: true, ..Default::default() });
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_not_found_and_may_be_removed() {
    let mut node = Node::new().await;
    for id in [UNKNOWN, ""] {
        for (call, status) in refusals(&node.cri, id).await {
            assert_eq!(status.code(), Code::NotFound, "{call} of {id:?}: {status}");
            assert!(status.message().contains("not found"), "{call}: {status}");
        }
    }
    let client = &mut node.cri.runtime;
    let id = || UNKNOWN.to_owned();
    client.stop_container(StopContainerRequest { container_id: id(), timeout: 0 }).await.unwrap();
    client.remove_container(RemoveContainerRequest { container_id: id() }).await.unwrap();
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id() }).await.unwrap();
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id() }).await.unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_lack_something_are_refused() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let code = |result: Result<(), Status>| result.unwrap_err().code();
    let client = &mut node.cri.runtime;

    let without_config = client.run_pod_sandbox(RunPodSandboxRequest::default()).await.map(drop);
    assert_eq!(code(without_config), Code::InvalidArgument);
    let config = Some(PodSandboxConfig::default());
    let nameless = RunPodSandboxRequest { config, runtime_handler: String::new() };
    assert_eq!(code(client.run_pod_sandbox(nameless).await.map(drop)), Code::InvalidArgument);

    let create =
        |config| CreateContainerRequest { pod_sandbox_id: sandbox.clone(), config, sandbox_config: None };
    assert_eq!(code(client.create_container(create(None)).await.map(drop)), Code::InvalidArgument);
    let nameless = ContainerConfig { metadata: None, ..shell("main", "") };
    assert_eq!(code(client.create_container(create(Some(nameless))).await.map(drop)), Code::InvalidArgument);
    let image = Some(ImageSpec { image: "no-such-image".to_owned(), ..Default::default() });
    let imageless = ContainerConfig { image, ..shell("main", "") };
    assert_eq!(code(client.create_container(create(Some(imageless))).await.map(drop)), Code::NotFound);

    let unknown_handler = RunPodSandboxRequest {
        config: Some(PodSandboxConfig {
            metadata: Some(PodSandboxMetadata::default()),
            ..Default::default()
        }),
        runtime_handler: "kata".to_owned(),
    };
    assert_eq!(code(client.run_pod_sandbox(unknown_handler).await.map(drop)), Code::InvalidArgument);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_can_only_do_what_its_state_allows() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.create(&sandbox, sleeper("main")).await;
    let not_running = node.try_exec(&id, &["/bin/echo"], 0).await.unwrap_err();
    assert_eq!(not_running.code(), Code::FailedPrecondition);
    node.try_start(&id).await.unwrap();
    assert_eq!(node.try_start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    let stream = |stdout, tty, stderr| ExecRequest {
        container_id: id.clone(),
        cmd: vec!["/bin/cat".to_owned()],
        stdout,
        tty,
        stderr,
        ..Default::default()
    };
    for bad in [stream(false, false, false), stream(true, true, true)] {
        assert_eq!(node.cri.runtime.exec(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    node.stop(&id, 0).await;
    assert_eq!(node.try_start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    node.cri.runtime.stop_pod_sandbox(request).await.unwrap();
    let late = CreateContainerRequest {
        pod_sandbox_id: sandbox,
        config: Some(shell("late", "")),
        sandbox_config: None,
    };
    assert_eq!(node.cri.runtime.create_container(late).await.unwrap_err().code(), Code::FailedPrecondition);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_abandons_nothing_half_way() {
    let mut node = Node::new().await;
    let mut client = node.cri.runtime.clone();
    let request =
        RunPodSandboxRequest { config: Some(node.sandbox_config()), runtime_handler: String::new() };
    let mut events = client.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let leaving = tokio::spawn(async move { client.run_pod_sandbox(request).await.map(drop) });
    // The request is under way once its folder is there.
    let folder = node.dir.path().join("data/sandboxes");
    while std::fs::read_dir(&folder).unwrap().count() == 0 {
        tokio::task::yield_now().await;
    }
    leaving.abort();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        if event.container_event_type() == ContainerEventType::ContainerStartedEvent {
            break;
        }
    }
    let list =
        node.cri.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].state(), PodSandboxState::SandboxReady);
    node.finish().await;
}
