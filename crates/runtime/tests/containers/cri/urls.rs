//! Streams by the URLs that the runtime gives out, over WebSockets as clients open them.

use ::runtime::cri::*;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::*;

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
/// Where the command's end is told.
const ERROR: u8 = 3;
/// Followed by the stream that is closed.
const CLOSE: u8 = 255;

async fn open(url: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let mut request = url.replacen("http://", "ws://", 1).into_client_request().unwrap();
    let address = request.uri().authority().unwrap().to_string();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn send(socket: &mut WebSocketStream<TcpStream>, bytes: Vec<u8>) {
    socket.send(Message::Binary(bytes.into())).await.unwrap();
}

/// Everything until the other side closes: standard output, and what was said of the end.
async fn read(socket: &mut WebSocketStream<TcpStream>) -> (String, String) {
    let (mut stdout, mut end) = (Vec::new(), Vec::new());
    while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
        let Message::Binary(bytes) = message else { continue };
        match bytes[0] {
            STDOUT => stdout.extend_from_slice(&bytes[1..]),
            ERROR => end.extend_from_slice(&bytes[1..]),
            _ => {}
        }
    }
    (String::from_utf8(stdout).unwrap(), String::from_utf8(end).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_run_at_its_url_once() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, sleeper("main")).await;
    let cmd = ["/bin/sh", "-c", "cat; exit 3"].map(str::to_owned).to_vec();
    let request = ExecRequest { container_id: id, cmd, stdin: true, stdout: true, ..Default::default() };
    let url = node.cri.runtime.exec(request).await.unwrap().into_inner().url;
    let mut socket = open(&url, PROTOCOL).await;
    send(&mut socket, [&[STDIN], &b"hello"[..]].concat()).await;
    send(&mut socket, vec![CLOSE, STDIN]).await;
    let (stdout, end) = read(&mut socket).await;
    assert_eq!(stdout, "hello");
    assert!(end.contains("\"NonZeroExitCode\"") && end.contains("\"3\""), "{end}");

    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    let again = url.replacen("http://", "ws://", 1).into_client_request().unwrap();
    assert!(tokio_tungstenite::client_async(again, stream).await.is_err(), "a URL is good for one use");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_process_is_attached_to_at_its_url() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "read line; echo \"got $line\"");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.run(&sandbox, config).await;
    let request = AttachRequest { container_id: id, stdin: true, stdout: true, ..Default::default() };
    let url = node.cri.runtime.attach(request).await.unwrap().into_inner().url;
    let mut socket = open(&url, PROTOCOL).await;
    send(&mut socket, [&[STDIN], &b"word\n"[..]].concat()).await;
    assert_eq!(read(&mut socket).await.0, "got word\n");
    node.finish().await;
}
