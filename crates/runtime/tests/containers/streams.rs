//! Exec, terminals, stdin and log rotation.

use runtime::cri::*;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_gives_output_and_exit_code() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let result = node.exec(&id, &["/bin/sh", "-c", "echo out; echo err >&2; exit 5"]).await;
    assert_eq!((result.stdout, result.stderr, result.exit_code), (b"out\n".to_vec(), b"err\n".to_vec(), 5));
    let error = node.try_exec(&id, &["absent"], 0).await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{}", error.message());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_past_its_timeout_is_killed() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let error = node.try_exec(&id, &["/bin/sleep", "12345"], 1).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    let count = node.exec(&id, &["/bin/sh", "-c", "ps | grep -c '1234[5]'"]).await.stdout;
    assert_eq!(count, b"0\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_output_arrives_whole() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let (_, output) = node.script(&sandbox, shell("main", "seq 1 20000")).await;
    let expect: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert_eq!(output, expect);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_given() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "tty; ls /dev/console; echo $TERM");
    config.tty = true;
    let (code, output) = node.script(&sandbox, config).await;
    assert_eq!((code, output.replace('\r', "").as_str()), (0, "/dev/pts/0\n/dev/console\nxterm\n"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_log_is_continued_in_a_new_file() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    nix::unistd::mkfifo(&volume.join("go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut config = shell("main", "echo before; cat /v/go; echo after");
    config.mounts = vec![Mount {
        container_path: "/v".to_owned(),
        host_path: volume.display().to_string(),
        ..Default::default()
    }];
    let id = node.run(&sandbox, config).await;
    let go = volume.join("go");
    let writer = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(go).unwrap());
    let writer = writer.await.unwrap();
    let (log, rotated) = (node.log_dir().join("main.log"), node.log_dir().join("main.log.1"));
    // The container has opened the pipe after it wrote; the shim may still have to take that.
    while log_text(&log, "stdout").is_empty() {
        tokio::task::yield_now().await;
    }
    std::fs::rename(&log, &rotated).unwrap();
    node.cri
        .runtime
        .reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() })
        .await
        .unwrap();
    drop(writer);
    node.ended(&id).await;
    assert_eq!(
        (log_text(&rotated, "stdout"), log_text(&log, "stdout")),
        ("before\n".into(), "after\n".into())
    );
    node.finish().await;
}

/// Runs one line of input through `kubectl exec -i`'s way: the streaming server's URL, spoken to over WebSocket, is
/// the streaming module's own test; here it is enough that the URL is given for what runs and refused for what not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streaming_urls_are_given_for_running_containers_only() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let request = |id: &str| ExecRequest {
        container_id: id.to_owned(),
        cmd: vec!["/bin/cat".to_owned()],
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let url = node.cri.runtime.exec(request(&id)).await.unwrap().into_inner().url;
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    node.stop(&id, 0).await;
    let error = node.cri.runtime.exec(request(&id)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    node.finish().await;
}
