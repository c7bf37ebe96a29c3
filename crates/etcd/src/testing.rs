//! Clusters of etcd to test against: members are processes on the loopback interface, their data is in a temporary
//! directory, and all of it goes with the cluster.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Client, Config, Tls};

/// Names another program than the one in the search path.
const PROGRAM: &str = "ETCD_BIN";

/// How often a cluster is tried on other ports, should another program take one of those that were free.
const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    _dir: TempDir,
}

#[derive(Debug)]
struct Member {
    arguments: Vec<OsString>,
    url: String,
    process: Option<Child>,
}

impl Cluster {
    /// A cluster that answers.
    pub async fn start(members: usize) -> Cluster {
        for _ in 0..ATTEMPTS {
            let mut cluster = Cluster::on_free_ports(members);
            if cluster.has_come_up().await {
                return cluster;
            }
        }
        panic!("etcd does not start; its own words are in this test's output");
    }

    fn on_free_ports(members: usize) -> Cluster {
        let dir = TempDir::with_prefix("etcd-test-").expect("a temporary directory");
        let ports = free_ports(2 * members);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = (0..members).map(|n| format!("m{n}={}", url(ports[members + n]))).collect();
        let peers = peers.join(",");
        let members = (0..members).map(|n| {
            let (client, peer) = (url(ports[n]), url(ports[members + n]));
            let arguments = arguments(n, dir.path(), &client, &peer, &peers);
            Member { process: Some(spawn(&arguments)), arguments, url: client }
        });
        Cluster { members: members.collect(), _dir: dir }
    }

    /// False when a member has ended, which it does when its port is taken.
    async fn has_come_up(&mut self) -> bool {
        let client = self.client();
        let mut answer = std::pin::pin!(client.revision());
        loop {
            tokio::select! {
                answer = &mut answer => return answer.is_ok(),
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {
                    if self.members.iter_mut().any(Member::has_ended) {
                        return false;
                    }
                }
            }
        }
    }

    /// How all members are reached.
    pub fn config(&self) -> Config {
        let servers = self.members.iter().map(|member| member.url.clone()).collect();
        Config { servers, tls: Tls::default() }
    }

    /// How one member is reached, and no other.
    pub fn config_of(&self, member: usize) -> Config {
        Config { servers: vec![self.members[member].url.clone()], tls: Tls::default() }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.config()).expect("the members' URLs are right")
    }

    /// Ends a member without warning.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill().expect("a process of this test");
            process.wait().expect("a process of this test");
        }
    }

    /// Starts a member that was killed, with the data it had.
    pub fn restart(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.process = Some(spawn(&member.arguments));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

impl Member {
    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }
}

fn arguments(n: usize, dir: &Path, client: &str, peer: &str, peers: &str) -> Vec<OsString> {
    let name = format!("m{n}");
    let data = dir.join(&name);
    let flags = [
        ("--name", name.as_str()),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", peers),
        ("--logger", "zap"),
        ("--log-level", "error"),
        // A test waits for elections.
        ("--heartbeat-interval", "50"),
        ("--election-timeout", "500"),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]);
    flags.chain(["--data-dir".into(), data.into_os_string()]).collect()
}

fn spawn(arguments: &[OsString]) -> Child {
    let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into());
    let spawned = Command::new(&program).args(arguments).stdin(Stdio::null()).spawn();
    spawned.unwrap_or_else(|error| {
        panic!("{program:?} cannot be started: {error}; `cargo xtask test` installs Debian's etcd-server")
    })
}

/// Ports that nobody listens at; all are held until the last is found, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("is bound").port()).collect()
}
