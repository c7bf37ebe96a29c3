//! A client that sends garbage, half a request or nothing at all costs nobody else anything.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::Cluster;

/// Connections of each bad kind.
const CONNECTIONS: usize = 100;
/// What an ordinary request may take meanwhile: `kubectl` itself needs most of it.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn garbage_half_a_request_and_silence_disturb_nobody() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let server = kubectl.server()?;
    let address = server.trim_start_matches("https://").to_owned();
    // A TLS client hello that announces more than it sends.
    let half: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1];
    let kinds: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", half, &[0xff; 4096]];
    let mut open = Vec::new();
    for bytes in kinds {
        for _ in 0..CONNECTIONS {
            let stream = cluster.machine().in_network(|| TcpStream::connect(&address))?;
            let mut stream = stream.context("the server takes connections")?;
            // It may have been shown the door already.
            if stream.write_all(bytes).is_ok() {
                open.push(stream);
            }
        }
    }
    let asked = Instant::now();
    kubectl.run(&["create", "configmap", "undisturbed"])?;
    kubectl.run(&["get", "configmap/undisturbed"])?;
    ensure!(asked.elapsed() < PATIENCE, "two requests took {:?}", asked.elapsed());
    drop(open);
    let huge = format!("--from-literal=a={}", "x".repeat(100_000));
    kubectl.run(&["create", "configmap", "large", &huge])?;
    cluster.finish()
}
