//! Each protocol over a real connection, from the client's request to the end of the stream.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    spdy::{Headers, Role, Session, Stream},
    *,
};

/// A container whose programs are written here.
struct Programs;

#[async_trait]
impl Backend for Programs {
    async fn exec(
        &self,
        container_id: &str,
        cmd: Vec<String>,
        _tty: bool,
        io: Streams,
    ) -> Result<i32, StreamError> {
        let Streams { stdin, stdout, stderr, resize } = io;
        match cmd[0].as_str() {
            "cat" => {
                tokio::io::copy(&mut stdin.unwrap(), &mut stdout.unwrap()).await.unwrap();
                Ok(0)
            }
            "exit" => {
                stderr.unwrap().write_all(b"bye").await.unwrap();
                Ok(cmd[1].parse().unwrap())
            }
            "yes" => {
                stdout.unwrap().write_all(&vec![b'y'; MANY]).await.unwrap();
                Ok(0)
            }
            "size" => {
                let TerminalSize { width, height } = resize.unwrap().recv().await.unwrap();
                stdout.unwrap().write_all(format!("{width}x{height}").as_bytes()).await.unwrap();
                Ok(0)
            }
            _ => Err(StreamError::NotRunning(container_id.to_owned())),
        }
    }

    async fn attach(&self, _: &str, _: bool, io: Streams) -> Result<(), StreamError> {
        io.stdout.unwrap().write_all(b"attached").await.unwrap();
        Ok(())
    }

    async fn port_forward(&self, _: &str, port: u16, stream: Box<dyn Duplex>) -> Result<(), StreamError> {
        if port != 7 {
            return Err(StreamError::failed("connect", "connection refused"));
        }
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        Ok(())
    }
}

/// More than any window, queue or pipe holds.
const MANY: usize = 3_000_000;

async fn server() -> (Arc<Server>, DropGuard) {
    let server = Server::bind(Arc::new(Programs)).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(server.clone().run(stop.clone()));
    (server, stop.drop_guard())
}

fn exec(cmd: &[&str]) -> ExecRequest {
    let cmd = cmd.iter().map(ToString::to_string).collect();
    ExecRequest { container_id: "c".to_owned(), cmd, stdout: true, ..ExecRequest::default() }
}

/// Host and path of a URL.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    rest.split_at(rest.find('/').unwrap())
}

/// Sends an upgrade request; gives the head of the response and the connection after it.
async fn request(url: &str, headers: &str) -> (String, TcpStream) {
    let (host, path) = split(url);
    let mut connection = TcpStream::connect(host).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap(), connection)
}

async fn dial_spdy(url: &str, protocol: &str) -> Session {
    let headers =
        format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n");
    let (head, connection) = request(url, &headers).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_lowercase().contains(&format!("x-stream-protocol-version: {protocol}")), "{head}");
    Session::new(connection, Role::Client)
}

async fn open(session: &Session, kind: &str) -> Stream {
    session.open(Headers::default().with("streamType", kind)).await.unwrap()
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn dial_websocket(url: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let (host, _) = split(url);
    let connection = TcpStream::connect(host).await.unwrap();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (socket, response) = client_async(request, connection).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol);
    socket
}

/// What each channel received until the socket was closed.
async fn channels(socket: &mut WebSocketStream<TcpStream>) -> Vec<(u8, String)> {
    let mut received = std::collections::BTreeMap::<u8, Vec<u8>>::new();
    while let Some(message) = socket.next().await {
        if let Message::Binary(data) = message.unwrap() {
            received.entry(data[0]).or_default().extend_from_slice(&data[1..]);
        }
    }
    received.into_iter().map(|(channel, data)| (channel, String::from_utf8(data).unwrap())).collect()
}

#[tokio::test]
async fn spdy_exec_passes_input_and_output_and_half_closes_input() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { stdin: true, ..exec(&["cat"]) }).unwrap();
    let session = dial_spdy(&url, "v4.channel.k8s.io").await;
    let error = open(&session, "error").await;
    let mut stdin = open(&session, "stdin").await;
    let stdout = open(&session, "stdout").await;
    stdin.write_all(b"to and fro").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(read_all(stdout).await, "to and fro");
    let status: Value = serde_json::from_str(&read_all(error).await).unwrap();
    assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
}

#[tokio::test]
async fn spdy_input_is_open_towards_the_client_for_as_long_as_the_command_reads_it() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { stdin: true, ..exec(&["cat"]) }).unwrap();
    let session = dial_spdy(&url, "v4.channel.k8s.io").await;
    let _error = open(&session, "error").await;
    let (mut end, mut stdin) = open(&session, "stdin").await.into_split();
    let mut stdout = open(&session, "stdout").await;
    let mut byte = [0];
    for _ in 0..3 {
        stdin.write_all(b"x").await.unwrap();
        stdout.read_exact(&mut byte).await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(end.read(&mut byte))).is_pending());
    }
    stdin.shutdown().await.unwrap();
    assert_eq!(end.read(&mut byte).await.unwrap(), 0);
}

#[tokio::test]
async fn spdy_exec_tells_the_exit_code_after_all_output() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { stderr: true, stdout: false, ..exec(&["exit", "3"]) }).unwrap();
    let session = dial_spdy(&url, "v4.channel.k8s.io").await;
    let error = open(&session, "error").await;
    let stderr = open(&session, "stderr").await;
    let status: Value = serde_json::from_str(&read_all(error).await).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    assert_eq!(read_all(stderr).await, "bye");
}

#[tokio::test]
async fn spdy_exec_delivers_more_than_any_buffer_holds() {
    let (server, _stop) = server().await;
    let session = dial_spdy(&server.exec_url(exec(&["yes"])).unwrap(), "v4.channel.k8s.io").await;
    let _error = open(&session, "error").await;
    let stdout = open(&session, "stdout").await;
    assert_eq!(read_all(stdout).await.len(), MANY);
}

#[tokio::test]
async fn spdy_terminals_are_resized_since_v3() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { tty: true, ..exec(&["size"]) }).unwrap();
    let session = dial_spdy(&url, "v3.channel.k8s.io").await;
    let error = open(&session, "error").await;
    let stdout = open(&session, "stdout").await;
    let mut resize = open(&session, "resize").await;
    resize.write_all(b"{\"Width\":100,\"Height\":30}\n").await.unwrap();
    assert_eq!(read_all(stdout).await, "100x30");
    assert_eq!(read_all(error).await, "");
}

#[tokio::test]
async fn a_failure_is_an_internal_error_and_attach_succeeds_whatever_the_exit_code() {
    let (server, _stop) = server().await;
    let session = dial_spdy(&server.exec_url(exec(&["nothing"])).unwrap(), "v4.channel.k8s.io").await;
    let error = open(&session, "error").await;
    let _stdout = open(&session, "stdout").await;
    let status: Value = serde_json::from_str(&read_all(error).await).unwrap();
    let expect =
        "Internal error occurred: error executing command in container: container \"c\" is not running";
    assert_eq!((&status["message"], &status["code"]), (&json!(expect), &json!(500)));

    let attach = AttachRequest { container_id: "c".to_owned(), stdout: true, ..AttachRequest::default() };
    let session = dial_spdy(&server.attach_url(attach).unwrap(), "v4.channel.k8s.io").await;
    let error = open(&session, "error").await;
    let stdout = open(&session, "stdout").await;
    assert_eq!(read_all(stdout).await, "attached");
    assert!(read_all(error).await.contains("Success"));
}

#[tokio::test]
async fn websocket_v5_ends_input_by_the_close_channel() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { stdin: true, ..exec(&["cat"]) }).unwrap();
    let mut socket = dial_websocket(&url, "v5.channel.k8s.io").await;
    for message in [&b"\0input"[..], b"\xff\0"] {
        socket.send(Message::Binary(message.to_vec().into())).await.unwrap();
    }
    let received = channels(&mut socket).await;
    assert_eq!(received[0], (1, "input".to_owned()));
    assert!(received[1].1.contains("Success"), "{received:?}");
}

#[tokio::test]
async fn websocket_delivers_more_than_any_buffer_holds_and_then_the_status() {
    let (server, _stop) = server().await;
    let mut socket = dial_websocket(&server.exec_url(exec(&["yes"])).unwrap(), "v4.channel.k8s.io").await;
    let received = channels(&mut socket).await;
    assert_eq!(received[0].1.len(), MANY);
    assert_eq!(received[1].0, 3);
}

#[tokio::test]
async fn websocket_terminals_are_resized_on_channel_4() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { tty: true, ..exec(&["size"]) }).unwrap();
    let mut socket = dial_websocket(&url, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\x04{\"Width\":9,\"Height\":8}".to_vec().into())).await.unwrap();
    assert_eq!(channels(&mut socket).await[0], (1, "9x8".to_owned()));
}

#[tokio::test]
async fn websocket_base64_carries_text() {
    let (server, _stop) = server().await;
    let url = server.exec_url(ExecRequest { stdin: true, ..exec(&["cat"]) }).unwrap();
    let mut socket = dial_websocket(&url, "base64.channel.k8s.io").await;
    socket.send(Message::Text("0aGk=".into())).await.unwrap();
    let announced = socket.next().await.unwrap().unwrap();
    let echoed = socket.next().await.unwrap().unwrap();
    assert_eq!((announced, echoed), (Message::Text("1".into()), Message::Text("1aGk=".into())));
}

async fn forward(session: &Session, port: &str, id: &str) -> (Stream, Stream) {
    let headers = |kind| Headers::default().with("streamType", kind).with("port", port).with("requestID", id);
    let error = session.open(headers("error")).await.unwrap();
    (session.open(headers("data")).await.unwrap(), error)
}

async fn check_forwarding(session: Session) {
    let (mut data, error) = forward(&session, "7", "0").await;
    let (_refused, refusal) = forward(&session, "8", "1").await;
    data.write_all(b"echo").await.unwrap();
    data.shutdown().await.unwrap();
    assert_eq!(read_all(data).await, "echo");
    assert_eq!(read_all(error).await, "");
    let expect = "error forwarding port 8 to pod sandbox, uid : connect: connection refused";
    assert_eq!(read_all(refusal).await, expect);
    assert!(session.open(Headers::default().with("streamType", "data").with("port", "0")).await.is_err());
}

fn forward_url(server: &Server) -> String {
    forward_ports(server, &[]).unwrap()
}

fn forward_ports(server: &Server, ports: &[u16]) -> Result<String, RequestError> {
    let request = PortForwardRequest { pod_sandbox_id: "sandbox".to_owned(), ports: ports.to_vec() };
    server.port_forward_url(request)
}

#[tokio::test]
async fn spdy_forwards_ports() {
    let (server, _stop) = server().await;
    check_forwarding(dial_spdy(&forward_url(&server), "portforward.k8s.io").await).await;
}

#[tokio::test]
async fn websockets_tunnel_spdy_to_forward_ports() {
    let (server, _stop) = server().await;
    let socket = dial_websocket(&forward_url(&server), "SPDY/3.1+portforward.k8s.io").await;
    check_forwarding(Session::new(websocket::tunnel(socket), Role::Client)).await;
}

/// The bytes of the next message, of either encoding.
async fn message(socket: &mut WebSocketStream<TcpStream>) -> Vec<u8> {
    socket.next().await.unwrap().unwrap().into_data().to_vec()
}

#[tokio::test]
async fn websockets_forward_the_ports_named_beforehand_over_two_channels_each() {
    let (server, _stop) = server().await;
    let url = forward_ports(&server, &[8, 7]).unwrap();
    let mut socket = dial_websocket(&url, "v4.channel.k8s.io").await;
    for expect in [b"\0\x08\0", b"\x01\x08\0", b"\x02\x07\0", b"\x03\x07\0"] {
        assert_eq!(message(&mut socket).await, expect);
    }
    let refusal = b"\x01error forwarding port 8 to pod sandbox, uid : connect: connection refused";
    assert_eq!(message(&mut socket).await, refusal);
    for echo in [&b"\x02echo"[..], b"\x02again"] {
        socket.send(Message::Binary(echo.to_vec().into())).await.unwrap();
        assert_eq!(message(&mut socket).await, echo);
    }
}

#[tokio::test]
async fn websockets_are_closed_when_all_forwarded_connections_have_ended() {
    let (server, _stop) = server().await;
    let url = forward_ports(&server, &[0x1234]).unwrap();
    let mut socket = dial_websocket(&url, "v4.channel.k8s.io").await;
    assert_eq!(message(&mut socket).await, b"\0\x34\x12");
    assert_eq!(message(&mut socket).await, b"\x01\x34\x12");
    assert!(message(&mut socket).await.starts_with(b"\x01error forwarding port 4660"));
    assert!(socket.next().await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn websockets_forward_ports_in_base64_too() {
    let (server, _stop) = server().await;
    let url = forward_ports(&server, &[7]).unwrap();
    let mut socket = dial_websocket(&url, "v4.base64.channel.k8s.io").await;
    for expect in ["0BwA=", "1BwA="] {
        assert_eq!(message(&mut socket).await, expect.as_bytes());
    }
    socket.send(Message::Text("0aGk=".into())).await.unwrap();
    assert_eq!(message(&mut socket).await, b"0aGk=");
}

#[tokio::test]
async fn websockets_that_offer_no_protocol_forward_ports_in_binary() {
    let (server, _stop) = server().await;
    let url = forward_ports(&server, &[7]).unwrap();
    let connection = TcpStream::connect(split(&url).0).await.unwrap();
    let (mut socket, response) = client_async(url.replace("http://", "ws://"), connection).await.unwrap();
    assert!(!response.headers().contains_key("Sec-WebSocket-Protocol"));
    assert_eq!(message(&mut socket).await, b"\0\x07\0");
}

#[tokio::test]
async fn channels_need_ports_and_not_more_than_there_are_channels_for() {
    let (server, _stop) = server().await;
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let (head, _) = request(&forward_url(&server), headers).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(forward_ports(&server, &[7; portforward::MAX_PORTS]).is_ok());
    let many = forward_ports(&server, &[7; portforward::MAX_PORTS + 1]);
    assert_eq!(many, Err(RequestError::TooManyPorts));
}

#[test]
fn ports_have_to_be_named_where_no_stream_names_them() {
    let check = |upgrade: &'static str, offers: &'static str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("connection", "Upgrade".parse().unwrap());
        headers.insert("upgrade", upgrade.parse().unwrap());
        headers.insert("sec-websocket-protocol", offers.parse().unwrap());
        must_name_ports(&headers)
    };
    assert!(check("websocket", "v4.channel.k8s.io"));
    assert!(check("websocket", ""));
    assert!(!check("websocket", "v4.channel.k8s.io, SPDY/3.1+portforward.k8s.io"));
    assert!(!check("SPDY/3.1", ""));
}

#[tokio::test]
async fn a_url_works_once() {
    let (server, _stop) = server().await;
    let url = server.exec_url(exec(&["yes"])).unwrap();
    assert!(request(&url, "").await.0.starts_with("HTTP/1.1 400"));
    assert!(request(&url, "").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_client_that_speaks_no_served_protocol_is_told_which_are() {
    let (server, _stop) = server().await;
    let headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n";
    let (head, _) = request(&server.exec_url(exec(&["yes"])).unwrap(), headers).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(head.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{head}");
}

#[tokio::test]
async fn requests_that_make_no_sense_get_no_url() {
    let (server, _stop) = server().await;
    let check = |request| server.exec_url(request).unwrap_err();
    assert_eq!(check(ExecRequest { tty: true, stderr: true, ..exec(&["x"]) }), RequestError::TtyWithStderr);
    assert_eq!(check(ExecRequest { stdout: false, ..exec(&["x"]) }), RequestError::NoStreams);
    assert_eq!(
        check(ExecRequest { container_id: String::new(), ..exec(&["x"]) }),
        RequestError::MissingContainerId
    );
}
