//! `dns`: how many questions about Services a DNS server answers.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Cluster;
use crate::latency::Latencies;
use crate::process::CpuMeter;
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};
use crate::services::{self, Protocol};

/// How long the last Service may take to have a name.
const NAMED_WAIT: Duration = Duration::from_secs(60);

/// When a question is taken to be lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// One in so many answers has its time taken, so that measuring costs little.
const SAMPLE: u64 = 64;

const HEADER_LEN: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

#[derive(Debug, clap::Args)]
pub struct Dns {
    /// The DNS server, over UDP
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// How long questions are asked, all names in turn
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clients, each a thread with a socket of its own
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Questions that each client has under way
    #[arg(long, default_value_t = 128)]
    window: usize,
}

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    lost: u64,
    took: Vec<Duration>,
}

impl Dns {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| self.measure(sandbox, cluster).await).await
    }

    async fn measure(&self, sandbox: &Sandbox, cluster: &Cluster) -> Result<Report> {
        sandbox
            .spread(self.services, services::CONCURRENCY, async |connection, n| {
                services::create(sandbox, connection, &services::name(n), Protocol::Tcp).await.map(drop)
            })
            .await?;
        let questions: Vec<Vec<u8>> = (0..self.services).map(|n| self.question(sandbox, n)).collect();
        let last = questions.last().context("no service, no name")?;
        await_name(self.server, last).await?;
        // Every name once, so that what is measured is a server at work and not one that warms up.
        ask(self.server, &questions, self.window, Stop::After(self.services as u64))?;
        let cpu = CpuMeter::start(&cluster.server_pids)?;
        let start = Instant::now();
        let until = start + Duration::from_secs(self.seconds);
        let seen = self.ask_from_all_clients(&questions, until).await?;
        let (elapsed, cpu) = (start.elapsed(), cpu.used());
        let answers: u64 = seen.iter().map(|seen| seen.answers).sum();
        let lost: u64 = seen.iter().map(|seen| seen.lost).sum();
        let took = Latencies::new(seen.into_iter().flat_map(|seen| seen.took).collect());
        let report = Report::new("dns")
            .row("services", self.services as f64, "")
            .row("answers per second", answers as f64 / elapsed.as_secs_f64(), "/s")
            .row("lost", lost as f64, "")
            .latencies("answer under this load", &took)
            .server_cpu("answer", cpu, usize::try_from(answers)?.max(1));
        Ok(match cpu {
            Some(cpu) => {
                report.row("answers per second of one core", answers as f64 / cpu.as_secs_f64(), "/s")
            }
            None => report,
        })
    }

    async fn ask_from_all_clients(&self, questions: &[Vec<u8>], until: Instant) -> Result<Vec<Seen>> {
        let (server, window) = (self.server, self.window);
        let mut clients = Vec::new();
        for client in 0..self.clients {
            // Each begins elsewhere, so that they do not ask the same at the same time.
            let mut questions = questions.to_vec();
            let first = client * questions.len() / self.clients;
            questions.rotate_left(first);
            clients
                .push(tokio::task::spawn_blocking(move || ask(server, &questions, window, Stop::At(until))));
        }
        let mut seen = Vec::new();
        for client in clients {
            seen.push(client.await??);
        }
        Ok(seen)
    }

    fn question(&self, sandbox: &Sandbox, n: usize) -> Vec<u8> {
        let name = format!("{}.{}.svc.{}", services::name(n), sandbox.namespace, self.domain);
        question(&name)
    }
}

/// For the address of a name, as a stub resolver asks.
fn question(name: &str) -> Vec<u8> {
    // No id yet, recursion desired, one question.
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(TYPE_A.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

fn connect(server: SocketAddr) -> Result<UdpSocket> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Waits until a name has an address.
async fn await_name(server: SocketAddr, question: &[u8]) -> Result<()> {
    let socket = connect(server)?;
    let deadline = Instant::now() + NAMED_WAIT;
    let mut answer = [0; 512];
    while Instant::now() < deadline {
        socket.send(question)?;
        if socket.recv(&mut answer).is_ok() && has_one_answer(&answer) {
            return Ok(());
        }
        tokio::time::sleep(crate::sandbox::LOOK_EVERY).await;
    }
    bail!("{server} does not know the last Service after {} s", NAMED_WAIT.as_secs())
}

/// No error, and one record.
fn has_one_answer(answer: &[u8]) -> bool {
    answer[3] & 0xf == 0 && answer[6..8] == [0, 1]
}

#[derive(Clone, Copy)]
enum Stop {
    At(Instant),
    After(u64),
}

/// Asks, with `window` questions under way at any time. Ids count up, and a socket's answers come in order but for
/// those lost.
fn ask(server: SocketAddr, questions: &[Vec<u8>], window: usize, stop: Stop) -> Result<Seen> {
    let socket = connect(server)?;
    let mut all = questions.iter().cycle();
    let (mut seen, mut id, mut answer) = (Seen::default(), 0u16, [0; 512]);
    let mut under_way: VecDeque<(u16, Instant)> = VecDeque::with_capacity(window);
    let mut message = Vec::with_capacity(512);
    loop {
        let done = match stop {
            Stop::After(count) => seen.answers + seen.lost >= count,
            Stop::At(end) => seen.answers.is_multiple_of(SAMPLE) && Instant::now() >= end,
        };
        if done {
            return Ok(seen);
        }
        let now = Instant::now();
        while under_way.len() < window.max(1) {
            id = id.wrapping_add(1);
            message.clear();
            message.extend_from_slice(all.next().context("nothing to ask")?);
            message[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&message)?;
            under_way.push_back((id, now));
        }
        match socket.recv(&mut answer) {
            Ok(length) => {
                ensure!(length > HEADER_LEN && has_one_answer(&answer), "{server} gave no address");
                let id = u16::from_be_bytes([answer[0], answer[1]]);
                let Some(at) = under_way.iter().position(|(asked, _)| *asked == id) else { continue };
                let (_, asked) = under_way.remove(at).context("found just now")?;
                seen.answers += 1;
                if seen.answers.is_multiple_of(SAMPLE) {
                    seen.took.push(asked.elapsed());
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                seen.lost += under_way.len() as u64;
                under_way.clear();
            }
            Err(error) => return Err(error).context("the server cannot be asked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_asking_until_it_has_its_answers() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..40 {
                let (length, client) = server.recv_from(&mut buffer).unwrap();
                buffer[7] = 1;
                server.send_to(&buffer[..length], client).unwrap();
            }
        });
        let questions = [question("a.example.org"), question("b.example.org")];
        let seen = ask(address, &questions, 1, Stop::After(40)).unwrap();
        assert_eq!((seen.answers, seen.lost), (40, 0));
        answering.join().unwrap();
    }
}
