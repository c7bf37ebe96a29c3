//! The server over UDP and TCP, beside a resolver that stands for the world outside.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use apimachinery::json;
use client::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::World;
use crate::dns::wire::{
    Code, Data, Forwarded, Record, Response, TCP_LEN_MAX, UDP_LEN_MIN, encode_query, kind, parse_query,
};
use crate::dns::{Name, Server, Upstreams};
use crate::testing::{Namespace, PATIENCE, at, ip};

const OUTSIDE: &str = "127.0.0.1:53";
const SERVER: &str = "127.0.0.2:53";

/// Answers every A question with as many addresses as the first label says, 1 if it is no number.
async fn resolver_outside() {
    let socket = UdpSocket::bind(at(OUTSIDE)).await.unwrap();
    let mut buffer = vec![0; TCP_LEN_MAX];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let query = parse_query(&buffer[..length]).unwrap();
        let label = String::from_utf8_lossy(&query.name.labels()[0]).into_owned();
        let answer = (0..label.parse().unwrap_or(1u8)).map(|last| Record {
            name: query.name.clone(),
            ttl: 60,
            data: Data::A([192, 0, 2, last].into()),
        });
        let response = Response { answers: answer.collect(), ..Response::of(Code::NoError) };
        socket.send_to(&response.encode(&query, TCP_LEN_MAX), client).await.unwrap();
    }
}

struct Asker {
    dnssec: Option<bool>,
}

impl Asker {
    async fn udp(&self, name: &str, kind: u16) -> Forwarded {
        let socket = UdpSocket::bind(at("127.0.0.3:0")).await.unwrap();
        let name = Name::parse(name).unwrap();
        socket.send_to(&encode_query(11, &name, kind, self.dnssec), at(SERVER)).await.unwrap();
        let mut buffer = vec![0; TCP_LEN_MAX];
        let received =
            tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("an answer in time");
        let (length, from) = received.unwrap();
        assert_eq!(from, at(SERVER));
        Forwarded::parse(buffer[..length].to_vec(), 11, &name, kind).expect("it answers the question")
    }

    async fn tcp(&self, names: &[&str], kind: u16) -> Vec<Forwarded> {
        let mut stream = TcpStream::connect(at(SERVER)).await.unwrap();
        let mut answers = Vec::new();
        for name in names {
            let name = Name::parse(name).unwrap();
            let query = encode_query(12, &name, kind, self.dnssec);
            stream.write_u16(query.len() as u16).await.unwrap();
            stream.write_all(&query).await.unwrap();
            let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut answer).await.unwrap();
            answers.push(Forwarded::parse(answer, 12, &name, kind).expect("it answers the question"));
        }
        answers
    }
}

fn addresses(answer: &Forwarded) -> Vec<IpAddr> {
    let addresses = answer.addresses.iter().filter_map(|record| match record.data {
        Data::A(v4) => Some(IpAddr::V4(v4)),
        Data::Aaaa(v6) => Some(IpAddr::V6(v6)),
        _ => None,
    });
    addresses.collect()
}

/// Runs `test` in a namespace with a server whose resolvers are `resolv_conf`'s.
fn serve(name: &str, resolv_conf: &str, test: impl AsyncFnOnce(Asker) + Send + 'static) {
    serve_world(name, resolv_conf, async |asker, _| test(asker).await);
}

/// The same with the objects behind the zone, to be changed.
fn serve_world(name: &str, resolv_conf: &str, test: impl AsyncFnOnce(Asker, &World) + Send + 'static) {
    let path: PathBuf = std::env::temp_dir().join(format!("coxswain-dns-{}-{name}", std::process::id()));
    std::fs::write(&path, resolv_conf).unwrap();
    let upstreams = Upstreams::new(path.clone(), vec![ip("127.0.0.2")]);
    Namespace::new().block_on(async move || {
        let world = World::with_services();
        let listen: [SocketAddr; 1] = [at(SERVER)];
        let server = Server::bind(&listen, world.zone.clone(), upstreams.into()).await.unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(stop.clone()));
        let outside = tokio::spawn(resolver_outside());
        test(Asker { dnssec: Some(false) }, &world).await;
        outside.abort();
        stop.cancel();
        serving.await.unwrap();
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn cluster_names_are_answered_over_both_transports() {
    serve("cluster", "", async |asker| {
        let answer = asker.udp("Web.default.svc.cluster.local", kind::A).await;
        assert_eq!(addresses(&answer), [ip("10.96.0.20")]);
        let answer = asker.udp("nowhere.default.svc.cluster.local", kind::A).await;
        assert_eq!((answer.code(), answer.ttl_min()), (Code::NameError as u8, Some(5)));
        let names = ["web.default.svc.cluster.local", "redis.default.svc.cluster.local"];
        let answers = asker.tcp(&names, kind::A).await;
        assert_eq!(answers.iter().map(|answer| addresses(answer).len()).collect::<Vec<_>>(), [1, 2]);
    });
}

#[test]
fn other_names_are_forwarded_and_kept() {
    serve("forward", "nameserver 127.0.0.2\nnameserver 127.0.0.1\n", async |asker| {
        for _ in 0..2 {
            assert_eq!(addresses(&asker.udp("example.org", kind::A).await), [ip("192.0.2.0")]);
        }
        let answer = asker.udp("outside.default.svc.cluster.local", kind::A).await;
        assert_eq!(addresses(&answer), [ip("192.0.2.0")], "an alias comes with its target's address");
        assert_eq!(answer.addresses.len(), 2);
        let answer = asker.udp("inside.default.svc.cluster.local", kind::A).await;
        assert_eq!(addresses(&answer), [ip("10.96.0.20")]);
    });
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    serve("long", "nameserver 127.0.0.1\n", async |_| {
        let plain = Asker { dnssec: None };
        let answer = plain.udp("100.example.org", kind::A).await;
        assert!(answer.is_truncated() && answer.bytes.len() <= UDP_LEN_MIN);
        assert_eq!(addresses(&plain.tcp(&["100.example.org"], kind::A).await[0]).len(), 100);
    });
}

#[test]
fn without_a_resolver_other_names_fail_at_once() {
    serve("none", "nameserver 127.0.0.2\n", async |asker| {
        let answer = asker.udp("example.org", kind::A).await;
        assert_eq!(answer.code(), Code::ServerFailure as u8);
    });
}

#[test]
fn addresses_of_a_headless_service_take_turns() {
    serve("turns", "", async |_| {
        let name = Name::parse("redis.default.svc.cluster.local").unwrap();
        let socket = UdpSocket::bind(at("127.0.0.3:0")).await.unwrap();
        let mut first = Vec::new();
        for id in [0, 1] {
            socket.send_to(&encode_query(id, &name, kind::A, None), at(SERVER)).await.unwrap();
            let mut buffer = [0; UDP_LEN_MIN];
            let length = socket.recv(&mut buffer).await.unwrap();
            let answer = Forwarded::parse(buffer[..length].to_vec(), id, &name, kind::A).unwrap();
            first.push(addresses(&answer)[0]);
        }
        assert_ne!(first[0], first[1]);
    });
}

#[test]
fn an_answer_given_before_is_forgotten_when_its_service_changes() {
    serve_world("changes", "", async |asker, world| {
        let (web, later) = ("web.default.svc.cluster.local", "later.default.svc.cluster.local");
        for _ in 0..2 {
            assert_eq!(addresses(&asker.udp(web, kind::A).await), [ip("10.96.0.20")]);
            assert_eq!(asker.udp(later, kind::A).await.code(), Code::NameError as u8);
        }
        world.service("web", json!({"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21"]}));
        world.service("later", json!({"clusterIP": "10.96.0.22", "clusterIPs": ["10.96.0.22"]}));
        assert_eq!(addresses(&asker.udp(web, kind::A).await), [ip("10.96.0.21")]);
        assert_eq!(addresses(&asker.udp(later, kind::A).await), [ip("10.96.0.22")]);
        let redis = "redis-0.redis.default.svc.cluster.local";
        assert_eq!(addresses(&asker.udp(redis, kind::A).await), [ip("10.244.0.5")]);
        world.slice("redis", json!([]), json!([{"addresses": ["10.244.0.8"], "hostname": "redis-0"}]));
        assert_eq!(addresses(&asker.udp(redis, kind::A).await), [ip("10.244.0.8")]);
    });
}

#[test]
fn questions_that_come_together_each_get_their_answer() {
    const COUNT: u16 = 200;
    serve("together", "", async |_| {
        let socket = UdpSocket::bind(at("127.0.0.3:0")).await.unwrap();
        let names = ["web", "redis", "nowhere"]
            .map(|name| Name::parse(&format!("{name}.default.svc.cluster.local")).unwrap());
        let name_of = |id: u16| &names[usize::from(id) % names.len()];
        for id in 0..COUNT {
            socket.send_to(&encode_query(id, name_of(id), kind::A, None), at(SERVER)).await.unwrap();
        }
        let mut open: Vec<u16> = (0..COUNT).collect();
        let mut buffer = [0; UDP_LEN_MIN];
        while !open.is_empty() {
            let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
            let answer = buffer[..received.expect("all answers come").unwrap()].to_vec();
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let read = Forwarded::parse(answer, id, name_of(id), kind::A).expect("it answers the question");
            assert_eq!(addresses(&read).len(), [1, 2, 0][usize::from(id) % names.len()]);
            open.retain(|other| *other != id);
        }
    });
}
