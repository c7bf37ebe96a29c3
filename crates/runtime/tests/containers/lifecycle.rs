//! Creation, start, end and removal of sandboxes and containers.

use runtime::Cgroups;
use runtime::cri::*;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_logs_and_ends() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "echo out; echo err >&2; printf part; hostname; cat /etc/hostname; exit 3";
    let id = node.run(&sandbox, shell("main", script)).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.finished_at >= status.started_at && status.started_at > 0);
    let log = node.log_dir().join("main.log");
    assert_eq!(log_text(&log, "stdout"), "out\npartpod-host\npod-host\n");
    assert_eq!(log_text(&log, "stderr"), "err\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_stops_gracefully_or_by_force() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let waits = "echo trapped; while true; do sleep 1000 & wait $!; done";
    let gentle = node.run(&sandbox, shell("gentle", &format!("trap 'exit 0' TERM; {waits}"))).await;
    node.logged("gentle", "trapped\n").await;
    node.stop(&gentle, 30).await;
    assert_eq!(node.status(&gentle).await.exit_code, 0);
    let stubborn = node.run(&sandbox, shell("stubborn", &format!("trap '' TERM; {waits}"))).await;
    node.logged("stubborn", "trapped\n").await;
    node.stop(&stubborn, 1).await;
    assert_eq!(node.status(&stubborn).await.exit_code, 137);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_there_is_reported_in_the_known_words() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "");
    config.command = vec!["no-such-program".to_owned()];
    let id = node.create(&sandbox, config).await;
    let error = node.try_start(&id).await.unwrap_err();
    assert!(
        error.message().contains("exec: \"no-such-program\": executable file not found in $PATH"),
        "{}",
        error.message()
    );
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_a_containers_life() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut events = node.cri.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let id = node.run(&sandbox, shell("main", "exit 0")).await;
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.container_id, id);
        assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, sandbox);
        kinds.push(event.container_event_type());
    }
    // A short container may end before its start is told.
    kinds.sort_by_key(|kind| *kind as i32);
    assert_eq!(
        kinds,
        [
            ContainerEventType::ContainerCreatedEvent,
            ContainerEventType::ContainerStartedEvent,
            ContainerEventType::ContainerStoppedEvent
        ]
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_pod_share_network_and_shared_memory_but_not_files() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let first = node.run(&sandbox, sleeper("first")).await;
    let second = node.run(&sandbox, sleeper("second")).await;
    node.exec(&first, &["/bin/sh", "-c", "echo hi > /dev/shm/x; echo hi > /tmp/x"]).await;
    assert_eq!(node.exec(&second, &["/bin/cat", "/dev/shm/x"]).await.stdout, b"hi\n");
    assert_eq!(node.exec(&second, &["/bin/cat", "/tmp/x"]).await.exit_code, 1);
    let mut namespaces = Vec::new();
    for id in [&first, &second] {
        let output = node.exec(id, &["/bin/readlink", "/proc/self/ns/net"]).await.stdout;
        namespaces.push(String::from_utf8(output).unwrap());
    }
    assert_eq!(namespaces[0], namespaces[1]);
    assert_ne!(namespaces[0].trim(), std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_are_made_and_read_only_ones_kept_so() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "text").unwrap();
    let mount = |target: &str, readonly| Mount {
        container_path: target.to_owned(),
        host_path: volume.display().to_string(),
        readonly,
        ..Default::default()
    };
    let mut config = shell("main", "cat /a/b/file; echo more > /rw/new; echo no > /a/b/no || echo refused");
    config.mounts = vec![mount("/a/b", true), mount("/rw", false)];
    let (code, output) = node.script(&sandbox, config).await;
    assert_eq!((code, output.as_str()), (0, "textrefused\n"));
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "more\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_to_be_mounted_is_made() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let folder = node.dir.path().join("not/there");
    let mut config = shell("main", "echo text > /new/file");
    let host_path = folder.display().to_string();
    config.mounts = vec![Mount { container_path: "/new".to_owned(), host_path, ..Default::default() }];
    assert_eq!(node.script(&sandbox, config).await.0, 0);
    assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "text\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_past_its_memory_is_oom_killed() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "dd if=/dev/zero of=/dev/null bs=200M count=1");
    let resources = config.linux.get_or_insert_default().resources.get_or_insert_default();
    resources.memory_limit_in_bytes = 20 << 20;
    // As the kubelet asks for, where swap is counted by itself.
    resources.unified.insert("memory.swap.max".to_owned(), "0".to_owned());
    let id = node.run(&sandbox, config).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_tell_memory_and_cpu() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = node.cri.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let request = PodSandboxStatsRequest { pod_sandbox_id: sandbox };
    let stats = node.cri.runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert_eq!(stats.linux.unwrap().containers.len(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_may_be_repeated() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    node.run(&sandbox, sleeper("main")).await;
    for _ in 0..2 {
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.cri.runtime.stop_pod_sandbox(request).await.unwrap();
    }
    for _ in 0..2 {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.cri.runtime.remove_pod_sandbox(request).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_service_settings_of_the_pod_are_written() {
    let mut node = Node::new().await;
    let mut config = node.sandbox_config();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    let sandbox = node.run_sandbox(config).await;
    let (_, output) = node.script(&sandbox, shell("main", "cat /etc/resolv.conf")).await;
    assert_eq!(
        output,
        "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_limits_of_the_containers_cgroup_and_can_be_changed() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = sleeper("main");
    let resources = config.linux.get_or_insert_default().resources.get_or_insert_default();
    (resources.cpu_shares, resources.cpu_quota, resources.cpu_period) = (512, 50_000, 100_000);
    (resources.memory_limit_in_bytes, resources.oom_score_adj) = (64 << 20, 1000);
    let id = node.run(&sandbox, config).await;
    let (memory_limit, rows) = if Cgroups::detect().unwrap().is_v2() {
        ("memory.max", vec![("cpu.weight", "59\n"), ("cpu.max", "50000 100000\n")])
    } else {
        let rows = vec![("cpu/cpu.shares", "512\n"), ("cpu/cpu.cfs_quota_us", "50000\n")];
        ("memory/memory.limit_in_bytes", rows)
    };
    let more = [(memory_limit, "67108864\n"), ("../../../proc/self/oom_score_adj", "1000\n")];
    for (file, expect) in rows.into_iter().chain(more) {
        let output = node.exec(&id, &["/bin/cat", &format!("/sys/fs/cgroup/{file}")]).await.stdout;
        assert_eq!(String::from_utf8(output).unwrap(), expect, "{file}");
    }
    let update = LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(update),
        ..Default::default()
    };
    node.cri.runtime.update_container_resources(request).await.unwrap();
    let limit = node.exec(&id, &["/bin/cat", &format!("/sys/fs/cgroup/{memory_limit}")]).await.stdout;
    assert_eq!(limit, b"33554432\n");
    let reported = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((reported.memory_limit_in_bytes, reported.cpu_shares), (32 << 20, 512));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_has_ended_does_not_hold_the_pods_quota() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "exit 0");
    let resources = config.linux.get_or_insert_default().resources.get_or_insert_default();
    (resources.cpu_quota, resources.cpu_period) = (50_000, 100_000);
    let id = node.run(&sandbox, config).await;
    node.ended(&id).await;
    let pod = format!("{}/pod", node.cgroup_root);
    let narrow = LinuxContainerResources { cpu_quota: 20_000, cpu_period: 100_000, ..Default::default() };
    let cgroups = Cgroups::detect().unwrap();
    // The kernel may hold the cgroup of the ended container for a moment.
    let narrowed = async {
        while cgroups.apply(&pod, &narrow).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, narrowed).await.expect("nothing needs more");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_sandbox_leaves_nothing() {
    let mut node = Node::new().await;
    let mut config = node.sandbox_config();
    let linux = config.linux.get_or_insert_default();
    linux.sysctls.insert("net.no.such.thing".to_owned(), "1".to_owned());
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let error = node.cri.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("net.no.such.thing"), "{}", error.message());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_made_of_the_running_program_runs() {
    let mut node = Node::new().await;
    let files = runtime::images::program_files("/program".as_ref()).unwrap();
    let config = runtime::images::ContainerConfig {
        entrypoint: ["/program", "--list", "an_image_made_of"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    runtime::images::import_rootfs(node.runtime.images(), "demo:latest", files, config).unwrap();
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "");
    config.image = Some(ImageSpec { image: "demo".to_owned(), ..Default::default() });
    config.command = Vec::new();
    let (code, output) = node.script(&sandbox, config).await;
    assert!(
        code == 0 && output.contains("an_image_made_of_the_running_program_runs: test"),
        "{code} {output}"
    );
    node.finish().await;
}
