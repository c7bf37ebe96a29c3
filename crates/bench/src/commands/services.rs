//! `services`: how soon Services are reached at the kernel, beside many others. What is timed ends with a datagram
//! that came through: to the Service's address, and back from the endpoint.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Cluster;
use crate::connection::Connection;
use crate::latency::Latencies;
use crate::report::Report;
use crate::sandbox::{Sandbox, with_sandbox};
use crate::services::{self, Protocol};

/// Past this a Service will not be reached.
const REACHED_WAIT: Duration = Duration::from_secs(600);

/// How long one datagram is waited for. A new one has a port of its own, so that no older connection is followed.
const ANSWER_WAIT: Duration = Duration::from_millis(2);

/// Endpoints that nobody asks: addresses for documentation.
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))];

#[derive(Debug, clap::Args)]
pub struct Services {
    /// Services that are there before, of two endpoints each
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// How often one Service is added and one endpoint changed
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// The command that programs Services in this network namespace, started once they are there. Without it one is
    /// taken to run already, and the time from nothing is not measured
    #[arg(last = true)]
    proxy: Vec<String>,
}

impl Services {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        with_sandbox(cluster.target()?, async |sandbox| self.measure(sandbox).await).await
    }

    async fn measure(&self, sandbox: &Sandbox) -> Result<Report> {
        let own = sandbox.own_address()?;
        let responders = [Responder::start(own)?, Responder::start(own)?];
        let created = Instant::now();
        let slices = services::slices_path(sandbox);
        sandbox
            .spread(self.services, services::CONCURRENCY, async |connection, n| {
                let name = services::name(n);
                services::create(sandbox, connection, &name, Protocol::Tcp).await?;
                connection.post(&slices, services::slice(&name, Protocol::Tcp, &NOBODY, 80)).await.map(drop)
            })
            .await?;
        let created = created.elapsed();
        let mut connection = sandbox.connect().await?;
        // Last by name and age, so that whoever reaches it has all others behind him.
        let last = add(sandbox, &mut connection, "zz-last", responders[0].address).await?;
        let mut report = Report::new("services")
            .row("services", self.services as f64, "")
            .milliseconds("all created in the API", created);
        let started = Instant::now();
        let _proxy = (!self.proxy.is_empty()).then(|| Proxy::start(&self.proxy)).transpose()?;
        reach(last, responders[0].address.port()).await?;
        if !self.proxy.is_empty() {
            report = report.milliseconds("from the proxy's start to all reached", started.elapsed());
        }
        let (mut took, mut acknowledged) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let name = format!("added-{round}");
            let service = services::create(sandbox, &mut connection, &name, Protocol::Udp).await?;
            let slice = services::slice(&name, Protocol::Udp, &[own], responders[0].address.port());
            let start = Instant::now();
            connection.post(&slices, slice).await?;
            acknowledged.push(start.elapsed());
            reach(service, responders[0].address.port()).await?;
            took.push(start.elapsed());
        }
        report = report
            .latencies("one more, from its slice to reached", &Latencies::new(took))
            .milliseconds("one more, until the API has its slice, median", median(acknowledged));
        let (mut took, mut acknowledged) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let port = responders[(round + 1) % responders.len()].address.port();
            let slice = services::slice("zz-last", Protocol::Udp, &[own], port);
            let start = Instant::now();
            connection.put(&format!("{slices}/zz-last"), slice).await?;
            acknowledged.push(start.elapsed());
            reach(last, port).await?;
            took.push(start.elapsed());
        }
        Ok(report
            .latencies("one endpoint changes, from its slice to reached", &Latencies::new(took))
            .milliseconds("one endpoint changes, until the API has its slice, median", median(acknowledged)))
    }
}

fn median(took: Vec<Duration>) -> Duration {
    Latencies::new(took).percentile(50.0)
}

/// A Service with one endpoint that answers.
async fn add(
    sandbox: &Sandbox,
    connection: &mut Connection,
    name: &str,
    endpoint: SocketAddr,
) -> Result<SocketAddr> {
    let service = services::create(sandbox, connection, name, Protocol::Udp).await?;
    let slice = services::slice(name, Protocol::Udp, &[endpoint.ip()], endpoint.port());
    connection.post(&services::slices_path(sandbox), slice).await?;
    Ok(service)
}

/// Sends datagrams until the endpoint with this port answers.
async fn reach(service: SocketAddr, port: u16) -> Result<()> {
    let work = move || {
        let deadline = Instant::now() + REACHED_WAIT;
        while Instant::now() < deadline {
            let asked = Instant::now();
            if answering(service).is_ok_and(|found| found == port) {
                return Ok(());
            }
            // Refusals come at once, as do answers of the endpoint before; asking again without a pause would take the
            // time that the proxy needs.
            std::thread::sleep(ANSWER_WAIT.saturating_sub(asked.elapsed()));
        }
        bail!("{service} is not reached after {} s", REACHED_WAIT.as_secs())
    };
    tokio::task::spawn_blocking(work).await?
}

/// The port of the endpoint that answers now.
fn answering(service: SocketAddr) -> Result<u16> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(service)?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut answer = [0; 2];
    socket.send(b"?")?;
    socket.recv(&mut answer)?;
    Ok(u16::from_be_bytes(answer))
}

/// Answers every datagram with its port.
struct Responder {
    address: SocketAddr,
}

impl Responder {
    fn start(ip: IpAddr) -> Result<Responder> {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        let address = socket.local_addr()?;
        std::thread::spawn(move || {
            let mut question = [0; 8];
            while let Ok((_, client)) = socket.recv_from(&mut question) {
                // A client that no longer waits asks again.
                socket.send_to(&address.port().to_be_bytes(), client).ok();
            }
        });
        Ok(Responder { address })
    }
}

/// The proxy that was started; it ends with the benchmark.
struct Proxy(Child);

impl Proxy {
    fn start(command: &[String]) -> Result<Proxy> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Proxy(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for end in [Child::kill(&mut self.0), self.0.wait().map(drop)] {
            if let Err(error) = end {
                eprintln!("the proxy cannot be ended: {error}");
            }
        }
    }
}
