//! What outlives the agent, and what happens when a shim does not.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::cri::*;

use crate::harness::*;

async fn shim_pid(node: &mut Node, sandbox: &str) -> i32 {
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
    let answer = node.cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
    info["pid"].as_i64().unwrap() as i32
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_the_agent() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let before = node.status(&id).await;
    node.restart().await;
    assert_eq!(node.status(&id).await, before);
    assert_eq!(node.exec(&id, &["/bin/echo", "hi"]).await.stdout, b"hi\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_while_the_agent_is_away_is_reported_with_its_code() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let fifo = volume.join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut config = shell("main", "cat /v/go; echo later; exit 7");
    config.mounts = vec![Mount {
        container_path: "/v".to_owned(),
        host_path: volume.display().to_string(),
        ..Default::default()
    }];
    let id = node.run(&sandbox, config).await;
    node.close();
    // Opening blocks until the container reads; closing lets it go on.
    tokio::task::spawn_blocking(move || drop(std::fs::File::options().write(true).open(fifo).unwrap()))
        .await
        .unwrap();
    node.restart().await;
    assert_eq!(node.ended(&id).await.exit_code, 7);
    assert_eq!(log_text(&node.log_dir().join("main.log"), "stdout"), "later\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shim_ends_its_sandbox() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let pid = shim_pid(&mut node, &sandbox).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false };
    let status = node.cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_could_not_be_recorded_is_found_by_the_next_agent() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let record = node.dir.path().join("data/containers").join(&id).join("record.json");
    let running = std::fs::read(&record).unwrap();
    kill(Pid::from_raw(shim_pid(&mut node, &sandbox).await), Signal::SIGKILL).unwrap();
    node.ended(&id).await;
    // The disk was full for the container's record, and was not for its sandbox's.
    std::fs::write(&record, running).unwrap();
    node.restart().await;
    assert_eq!(node.ended(&id).await.reason, "Unknown");
    node.stop(&id, 0).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_shim_is_small() {
    const PSS_KB_MAX: u64 = 2048;
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    node.run(&sandbox, sleeper("main")).await;
    let pid = shim_pid(&mut node, &sandbox).await;
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    let pss: u64 = pss.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{rollup}");
    assert!(pss < PSS_KB_MAX, "{pss} kB");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shims_outlive_the_process_they_were_forked_from() {
    let mut node = Node::new().await;
    let first = node.sandbox().await;
    let id = node.run(&first, sleeper("main")).await;
    let shim = shim_pid(&mut node, &first).await;
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let zygote = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{zygote}/comm")).unwrap(), "cox-zygote\n");
    // It dies with a request that it has not looked at.
    kill(Pid::from_raw(zygote), Signal::SIGSTOP).unwrap();
    let mut config = node.sandbox_config();
    config.metadata.as_mut().unwrap().name = "second".to_owned();
    let state = node.dir.path().join("state/sandboxes");
    let logs = || {
        let sandboxes = std::fs::read_dir(&state).unwrap().flatten();
        sandboxes.filter(|sandbox| sandbox.path().join("shim.log").exists()).count()
    };
    let dies = async {
        while logs() < 2 {
            tokio::task::yield_now().await;
        }
        kill(Pid::from_raw(zygote), Signal::SIGKILL).unwrap();
    };
    let (second, ()) = tokio::join!(node.run_sandbox(config), dies);
    assert_eq!(node.script(&second, shell("other", "echo new")).await, (0, "new\n".to_owned()));
    assert_eq!(node.exec(&id, &["/bin/echo", "old"]).await.stdout, b"old\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_had_only_begun_is_removed_by_the_next() {
    let mut node = Node::new().await;
    let folders =
        ["data/sandboxes", "data/containers", "state/sandboxes"].map(|dir| node.dir.path().join(dir));
    node.close();
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder.join("begun/upper")).unwrap());
    node.restart().await;
    let left = folders.iter().filter(|folder| folder.join("begun").exists()).count();
    assert_eq!(left, 0);
    node.finish().await;
}
