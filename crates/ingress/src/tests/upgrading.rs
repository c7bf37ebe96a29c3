//! Connections that go on with another protocol.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Cluster, all_to, listen, serve};

/// Reads until the head of a message is in.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text").to_ascii_lowercase()
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(b"and you").await.unwrap();
        (head, said)
    });
    let serving =
        serve(Cluster::default().ingress(all_to("web")).service("web", None, &[address]).table()).await;
    let mut stream = TcpStream::connect(serving.http).await.unwrap();
    stream.write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: y\r\n\r\n").await.unwrap();
    let answered = head(&mut stream).await;
    assert!(answered.starts_with("http/1.1 101"), "{answered}");
    assert!(
        answered.contains("upgrade: websocket") && answered.contains("sec-websocket-accept: x"),
        "{answered}"
    );
    stream.write_all(b"hello").await.unwrap();
    let mut said = [0; 7];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"and you");
    let (asked, heard) = backend.await.unwrap();
    assert!(asked.contains("upgrade: websocket") && asked.contains("connection: upgrade"), "{asked}");
    assert_eq!(&heard, b"hello");
}
