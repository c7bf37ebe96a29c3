//! Lists with their filters, and what a list tells of each.

use std::collections::HashMap;

use ::runtime::cri::*;

use crate::harness::*;

fn labels(app: &str) -> HashMap<String, String> {
    HashMap::from([("app".to_owned(), app.to_owned())])
}

/// Two pods with a container each; of the second pod all is over.
async fn two_pods(node: &mut Node) -> [(String, String); 2] {
    let mut pods = Vec::new();
    for name in ["one", "two"] {
        let mut config = node.sandbox_config();
        config.metadata.as_mut().unwrap().name = name.to_owned();
        (config.labels, config.annotations) = (labels(name), HashMap::from([("note".into(), name.into())]));
        let sandbox = node.run_sandbox(config).await;
        let container = ContainerConfig { labels: labels(name), ..sleeper(name) };
        let container = node.run(&sandbox, container).await;
        pods.push((sandbox, container));
    }
    let request = StopPodSandboxRequest { pod_sandbox_id: pods[1].0.clone() };
    node.cri.runtime.stop_pod_sandbox(request).await.unwrap();
    pods.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_are_listed_by_id_state_and_labels() {
    let mut node = Node::new().await;
    let [(one, _), (two, _)] = two_pods(&mut node).await;
    let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state as i32 });
    let filter = PodSandboxFilter::default;
    for (filter, expect) in [
        (filter(), vec![&one, &two]),
        (PodSandboxFilter { id: one.clone(), ..filter() }, vec![&one]),
        (PodSandboxFilter { id: one[..12].to_owned(), ..filter() }, vec![&one]),
        (PodSandboxFilter { state: state(PodSandboxState::SandboxReady), ..filter() }, vec![&one]),
        (PodSandboxFilter { state: state(PodSandboxState::SandboxNotready), ..filter() }, vec![&two]),
        (PodSandboxFilter { label_selector: labels("two"), ..filter() }, vec![&two]),
        (PodSandboxFilter { label_selector: labels("three"), ..filter() }, vec![]),
    ] {
        let request = ListPodSandboxRequest { filter: Some(filter.clone()) };
        let mut items = node.cri.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
        items.sort_by_key(|item| item.created_at);
        assert_eq!(items.iter().map(|item| &item.id).collect::<Vec<_>>(), expect, "{filter:?}");
    }
    let list =
        node.cri.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    let item = list.items.iter().find(|item| item.id == one).unwrap();
    assert_eq!((&item.labels, item.annotations["note"].as_str()), (&labels("one"), "one"));
    assert_eq!(item.metadata.as_ref().unwrap().name, "one");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_and_their_stats_are_listed_by_id_pod_state_and_labels() {
    let mut node = Node::new().await;
    let [(one, first), (two, second)] = two_pods(&mut node).await;
    let state = |state: ContainerState| Some(ContainerStateValue { state: state as i32 });
    let filter = ContainerFilter::default;
    for (filter, expect) in [
        (filter(), vec![&first, &second]),
        (ContainerFilter { id: first[..12].to_owned(), ..filter() }, vec![&first]),
        (ContainerFilter { pod_sandbox_id: two.clone(), ..filter() }, vec![&second]),
        (ContainerFilter { state: state(ContainerState::ContainerRunning), ..filter() }, vec![&first]),
        (ContainerFilter { state: state(ContainerState::ContainerExited), ..filter() }, vec![&second]),
        (ContainerFilter { label_selector: labels("one"), ..filter() }, vec![&first]),
        (ContainerFilter { pod_sandbox_id: one.clone(), label_selector: labels("two"), ..filter() }, vec![]),
    ] {
        let request = ListContainersRequest { filter: Some(filter.clone()) };
        let mut found = node.cri.runtime.list_containers(request).await.unwrap().into_inner().containers;
        found.sort_by_key(|container| container.created_at);
        assert_eq!(found.iter().map(|container| &container.id).collect::<Vec<_>>(), expect, "{filter:?}");
    }
    // What does not run uses nothing.
    for (filter, expect) in [
        (None, 1),
        (Some(ContainerStatsFilter { label_selector: labels("one"), ..Default::default() }), 1),
        (Some(ContainerStatsFilter { pod_sandbox_id: two, ..Default::default() }), 0),
    ] {
        let request = ListContainerStatsRequest { filter: filter.clone() };
        let stats = node.cri.runtime.list_container_stats(request).await.unwrap().into_inner().stats;
        assert_eq!(stats.len(), expect, "{filter:?}");
    }
    let request = ListPodSandboxStatsRequest { filter: None };
    let stats = node.cri.runtime.list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
    assert_eq!(
        stats.iter().map(|stats| stats.attributes.as_ref().unwrap().id.clone()).collect::<Vec<_>>(),
        [one]
    );
    node.finish().await;
}
