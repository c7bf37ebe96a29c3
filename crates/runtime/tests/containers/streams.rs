//! Exec, terminals, stdin and log rotation.

use runtime::cri::*;
use runtime::streaming::{Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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

fn streams(stdin: DuplexStream, stdout: DuplexStream) -> Streams {
    Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: None }
}

async fn read_all(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_takes_input_to_its_end() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let backend = node.runtime.streaming_backend();
    let (mut input, stdin) = duplex(1024);
    let (stdout, output) = duplex(1 << 20);
    let exec = tokio::spawn(async move {
        backend
            .exec(
                &id,
                vec!["/bin/sh".into(), "-c".into(), "cat; exit 4".into()],
                false,
                streams(stdin, stdout),
            )
            .await
    });
    let sent = "line\n".repeat(50_000);
    let writer = {
        let sent = sent.clone();
        tokio::spawn(async move {
            input.write_all(sent.as_bytes()).await.unwrap();
        })
    };
    assert_eq!(read_all(output).await, sent);
    writer.await.unwrap();
    assert_eq!(exec.await.unwrap().unwrap(), 4);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_in_a_terminal_has_the_size_that_was_sent() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let backend = node.runtime.streaming_backend();
    let (mut input, stdin) = duplex(1024);
    let (stdout, mut output) = duplex(1 << 20);
    let (sizes, resize) = tokio::sync::mpsc::channel(1);
    let io = Streams { resize: Some(resize), ..streams(stdin, stdout) };
    let exec = tokio::spawn(async move { backend.exec(&id, vec!["/bin/sh".into()], true, io).await });
    sizes.send(TerminalSize { width: 132, height: 43 }).await.unwrap();
    // The size is set by another task than the input is written by: asked for until it shows.
    let mut text = String::new();
    while !text.contains("43 132") {
        input.write_all(b"stty size\n").await.unwrap();
        let mut buffer = [0; 4096];
        let length = tokio::time::timeout(PATIENCE, output.read(&mut buffer)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    input.write_all(b"tty; exit 9\n").await.unwrap();
    assert!(read_all(output).await.contains("/dev/pts/"));
    assert_eq!(exec.await.unwrap().unwrap(), 9);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_joins_the_running_process() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "while read line; do echo \"got $line\"; done");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.run(&sandbox, config).await;
    let backend = node.runtime.streaming_backend();
    let (mut input, stdin) = duplex(1024);
    let (stdout, output) = duplex(1024);
    let attached = {
        let id = id.clone();
        tokio::spawn(async move { backend.attach(&id, false, streams(stdin, stdout)).await })
    };
    input.write_all(b"one\ntwo\n").await.unwrap();
    drop(input);
    assert_eq!(read_all(output).await, "got one\ngot two\n");
    attached.await.unwrap().unwrap();
    assert_eq!(log_text(&node.log_dir().join("main.log"), "stdout"), "got one\ngot two\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_said_all_leaves_a_process_whose_input_stays_open() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "while read line; do echo \"got $line\"; done");
    config.stdin = true;
    let id = node.run(&sandbox, config).await;
    for line in ["one", "two"] {
        let backend = node.runtime.streaming_backend();
        let (mut input, stdin) = duplex(1024);
        let (stdout, mut output) = duplex(1024);
        let id = id.clone();
        let attached = tokio::spawn(async move { backend.attach(&id, false, streams(stdin, stdout)).await });
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = [0; 8];
        output.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *format!("got {line}\n").as_bytes());
        drop(input);
        assert_eq!(read_all(output).await, "");
        attached.await.unwrap().unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_process_along() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let backend = node.runtime.streaming_backend();
    let (_input, stdin) = duplex(1024);
    let (stdout, mut output) = duplex(1024);
    let exec = {
        let id = id.clone();
        let cmd = vec!["/bin/sh".into(), "-c".into(), "echo up; sleep 54321".into()];
        tokio::spawn(async move { backend.exec(&id, cmd, false, streams(stdin, stdout)).await })
    };
    let mut up = [0; 3];
    output.read_exact(&mut up).await.unwrap();
    exec.abort();
    // The shim serves one request after the other: the end of the connection comes before what is asked next, or
    // is seen in a later round.
    while node.exec(&id, &["/bin/sh", "-c", "ps | grep -c '[e]cho up'"]).await.stdout != b"0\n" {}
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_the_pod_is_forwarded_from_its_loopback() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "echo ready; nc -l -p 8080 -e /bin/cat";
    let id = node.run(&sandbox, shell("main", script)).await;
    let listening = ["/bin/grep", "-c", ":1F90 ", "/proc/net/tcp"];
    let listening6 = ["/bin/grep", "-c", ":1F90 ", "/proc/net/tcp6"];
    while node.exec(&id, &listening).await.exit_code != 0 && node.exec(&id, &listening6).await.exit_code != 0
    {
    }
    let backend = node.runtime.streaming_backend();
    let (mut ours, theirs) = duplex(1024);
    let forward = {
        let (sandbox, backend) = (sandbox.clone(), backend.clone());
        tokio::spawn(async move { backend.port_forward(&sandbox, 8080, Box::new(theirs)).await })
    };
    ours.write_all(b"ping").await.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(read_all(ours).await, "ping");
    forward.await.unwrap().unwrap();
    let (_ours, theirs) = duplex(1024);
    let refused = backend.port_forward(&sandbox, 9, Box::new(theirs)).await.unwrap_err();
    assert!(format!("{refused}").contains("failed to connect to localhost:9"), "{refused}");
    node.finish().await;
}
