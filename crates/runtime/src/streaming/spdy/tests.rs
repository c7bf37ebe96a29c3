//! Two sessions over a pipe: client and server of one connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::codec::{Encoder, FramedRead};

use super::{frame::*, *};

fn pair() -> (Session, Session) {
    let (near, far) = tokio::io::duplex(8 * 1024);
    (Session::new(near, Role::Client), Session::new(far, Role::Server))
}

async fn stream_pair(client: &Session, server: &mut Session) -> (Stream, Stream) {
    let headers = Headers::default().with("streamType", "data");
    let (opened, accepted) = tokio::join!(client.open(headers), async {
        let incoming = server.accept().await.unwrap();
        assert_eq!(incoming.headers().get("streamType"), Some("data"));
        incoming.accept().await.unwrap()
    });
    (opened.unwrap(), accepted)
}

#[tokio::test]
async fn half_closing_one_way_leaves_the_other_open() {
    let (client, mut server) = pair();
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn more_than_a_window_passes_between_peers_that_take_part_in_flow_control() {
    let (client, mut server) = pair();
    let (near, mut far) = stream_pair(&client, &mut server).await;
    let (_, mut writer) = near.into_split();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == expected);
}

#[tokio::test]
async fn all_that_was_written_arrives_before_the_session_closes() {
    let (client, mut server) = pair();
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    let closing = tokio::spawn(async move {
        far.write_all(&[7; 50_000]).await.unwrap();
        drop(far);
        server.close().await;
    });
    let mut received = Vec::new();
    near.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 50_000);
    closing.await.unwrap();
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_stream_ends_after_its_data_however_busy_the_others_are() {
    let (client, mut server) = pair();
    let mut readings = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (mut near, mut far) = stream_pair(&client, &mut server).await;
        tokio::spawn(async move { far.write_all(&[1; 300]).await.unwrap() });
        readings.spawn(async move {
            let mut received = Vec::new();
            near.read_to_end(&mut received).await.unwrap();
            received.len()
        });
    }
    assert!(readings.join_all().await.iter().all(|length| *length == 300));
}

#[tokio::test]
async fn a_refused_stream_fails_its_opener_only() {
    let (client, mut server) = pair();
    let (refused, ()) = tokio::join!(client.open(Headers::default()), async {
        server.accept().await.unwrap().refuse().await.unwrap();
    });
    assert_eq!(refused.err(), Some(SessionError::Refused));
    stream_pair(&client, &mut server).await;
}

#[tokio::test]
async fn pings_are_echoed_both_ways() {
    let (client, server) = pair();
    client.ping().await.unwrap();
    server.ping().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_transport_ends_streams_and_writers() {
    let (client, mut server) = pair();
    let (near, mut far) = stream_pair(&client, &mut server).await;
    drop((near, client));
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    server.closed().await;
    assert!(far.write_all(b"late").await.is_err());
    assert!(server.accept().await.is_none());
}

#[tokio::test]
async fn garbage_ends_the_session() {
    let (mut raw, far) = tokio::io::duplex(1024);
    let mut server = Session::new(far, Role::Server);
    raw.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\xff\xff\xff\xff").await.unwrap();
    drop(raw);
    assert!(server.accept().await.is_none());
}

#[tokio::test]
async fn a_stream_id_used_again_is_reset() {
    let (mut raw, far) = tokio::io::duplex(64 * 1024);
    let mut server = Session::new(far, Role::Server);
    let mut encoder = FrameEncoder::default();
    send_syn(&mut raw, &mut encoder, 3).await;
    send_syn(&mut raw, &mut encoder, 3).await;
    let first = server.accept().await.unwrap();
    assert_eq!(first.id(), 3);
    let mut frames = FramedRead::new(raw, FrameDecoder::default());
    let frame = futures_util::StreamExt::next(&mut frames).await.unwrap().unwrap();
    assert_eq!(frame, Frame::RstStream { id: 3, status: reset::PROTOCOL_ERROR });
}

#[tokio::test]
async fn streams_past_the_limit_are_refused() {
    let (mut raw, far) = tokio::io::duplex(1024 * 1024);
    let _server = Session::new(far, Role::Server);
    let mut encoder = FrameEncoder::default();
    for n in 0..=MAX_STREAMS as u32 {
        send_syn(&mut raw, &mut encoder, 2 * n + 1).await;
    }
    let mut frames = FramedRead::new(raw, FrameDecoder::default());
    let frame = futures_util::StreamExt::next(&mut frames).await.unwrap().unwrap();
    assert_eq!(frame, Frame::RstStream { id: 2 * MAX_STREAMS as u32 + 1, status: reset::REFUSED_STREAM });
}

async fn send_syn(raw: &mut DuplexStream, encoder: &mut FrameEncoder, id: u32) {
    let mut bytes = bytes::BytesMut::new();
    let frame = Frame::SynStream {
        id,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: Headers::default(),
    };
    encoder.encode(frame, &mut bytes).unwrap();
    raw.write_all(&bytes).await.unwrap();
}
