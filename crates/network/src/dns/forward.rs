//! Asking other resolvers, such as those of `/etc/resolv.conf`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Name;
use super::wire::{Forwarded, Query, TCP_LEN_MAX, encode_query};

const PORT: u16 = 53;

/// How long one resolver may take. Clients commonly give up after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often all resolvers are asked, and the most that `options` may say, as in glibc.
const ATTEMPTS: usize = 2;
const ATTEMPTS_MAX: usize = 5;
const PATIENCE_SECONDS_MAX: u64 = 30;

/// As in glibc, more are ignored.
const RESOLVERS_MAX: usize = 3;

/// Whom to ask, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    pub addresses: Vec<SocketAddr>,
    patience: Duration,
    attempts: usize,
    /// Each question begins with another resolver.
    rotate: bool,
}

impl Resolvers {
    pub fn new(addresses: Vec<SocketAddr>) -> Resolvers {
        Resolvers { addresses, patience: PATIENCE, attempts: ATTEMPTS, rotate: false }
    }

    /// Whether each question begins with another resolver.
    pub fn rotating(self, rotate: bool) -> Resolvers {
        Resolvers { rotate, ..self }
    }

    /// Every one, as often and in the order that it is to be asked.
    fn turns(&self, random: u16) -> impl Iterator<Item = SocketAddr> {
        let count = self.addresses.len();
        let first = if self.rotate && count > 0 { usize::from(random) % count } else { 0 };
        (0..count * self.attempts).map(move |turn| self.addresses[(first + turn) % count])
    }
}

/// Resolvers as a file in the form of `/etc/resolv.conf` names them, read again when it changes.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    /// Never asked: the server's own addresses, which would make a loop.
    own: Vec<IpAddr>,
    read: Mutex<Option<(SystemTime, Resolvers)>>,
}

impl ResolvConf {
    pub fn new(path: PathBuf, own: Vec<IpAddr>) -> ResolvConf {
        ResolvConf { path, own, read: Mutex::new(None) }
    }

    /// The resolvers now; none if the file names none or is not there.
    pub fn resolvers(&self) -> Resolvers {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        let mut read = self.read.lock();
        if let (Some((at, resolvers)), Some(modified)) = (read.as_ref(), modified)
            && *at == modified
        {
            return resolvers.clone();
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let resolvers = parse_resolv_conf(&text, &self.own);
        *read = modified.map(|modified| (modified, resolvers.clone()));
        resolvers
    }
}

fn parse_resolv_conf(text: &str, own: &[IpAddr]) -> Resolvers {
    let mut resolvers = Resolvers::new(Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                let usable = address.filter(|address| !own.contains(address));
                resolvers.addresses.extend(usable.map(|ip| SocketAddr::new(ip, PORT)));
            }
            Some("options") => words.for_each(|option| resolvers.take_option(option)),
            _ => {}
        }
    }
    resolvers.addresses.truncate(RESOLVERS_MAX);
    resolvers
}

impl Resolvers {
    fn take_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u64>()) {
            ("rotate", _) => self.rotate = true,
            ("timeout", Ok(seconds)) => {
                self.patience = Duration::from_secs(seconds.clamp(1, PATIENCE_SECONDS_MAX));
            }
            ("attempts", Ok(attempts)) => self.attempts = (attempts as usize).clamp(1, ATTEMPTS_MAX),
            _ => {}
        }
    }
}

/// Asks one resolver after the other; says which has answered, `None` if none does in time. `whole` asks again over TCP for what
/// does not fit a datagram.
pub(super) async fn ask(
    resolvers: &Resolvers,
    query: &Query,
    name: &Name,
    whole: bool,
) -> Option<(SocketAddr, Forwarded)> {
    let question = Question {
        id: random_id(),
        name,
        kind: query.kind,
        dnssec: query.edns.map(|edns| edns.dnssec),
        patience: resolvers.patience,
    };
    for resolver in resolvers.turns(random_id()) {
        let answer = match question.ask_udp(resolver).await {
            Some(answer) if answer.is_truncated() && whole => question.ask_tcp(resolver).await,
            answer => answer,
        };
        if let Some(answer) = answer {
            return Some((resolver, answer));
        }
        tracing::debug!(%resolver, %name, "resolver does not answer");
    }
    None
}

/// What we ask in turn. The name is the client's, or where an alias led.
struct Question<'a> {
    id: u16,
    name: &'a Name,
    kind: u16,
    dnssec: Option<bool>,
    patience: Duration,
}

impl Question<'_> {
    /// Each question has a socket, and so a port, of its own, which makes forged answers hard.
    async fn ask_udp(&self, resolver: SocketAddr) -> Option<Forwarded> {
        let any: IpAddr =
            if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let exchange = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(resolver).await?;
            socket.send(&self.encode()).await?;
            let mut buffer = vec![0; TCP_LEN_MAX];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(answer) = self.parse(buffer[..length].to_vec()) {
                    return Ok::<_, io::Error>(answer);
                }
            }
        };
        timeout(self.patience, exchange).await.ok()?.ok()
    }

    async fn ask_tcp(&self, resolver: SocketAddr) -> Option<Forwarded> {
        let exchange = async {
            let mut stream = TcpStream::connect(resolver).await?;
            let query = self.encode();
            stream.write_u16(query.len() as u16).await?;
            stream.write_all(&query).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        self.parse(timeout(self.patience, exchange).await.ok()?.ok()?)
    }

    fn encode(&self) -> Vec<u8> {
        encode_query(self.id, self.name, self.kind, self.dnssec)
    }

    fn parse(&self, answer: Vec<u8>) -> Option<Forwarded> {
        Forwarded::parse(answer, self.id, self.name, self.kind)
    }
}

/// Not to be guessed by who would forge an answer: the hasher's keys come from the kernel.
fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_without_the_servers_own_address() {
        let text = "# generated\nsearch example.org\nnameserver 10.244.0.1\nnameserver 192.0.2.53\nnameserver\noptions ndots:5 timeout:1 rotate attempts:9\nnameserver fd00::53\n";
        let own = ["10.244.0.1".parse().unwrap()];
        let addresses: Vec<SocketAddr> =
            ["192.0.2.53:53", "[fd00::53]:53"].map(|text| text.parse().unwrap()).into();
        let resolvers = parse_resolv_conf(text, &own);
        let patience = Duration::from_secs(1);
        assert_eq!(
            resolvers,
            Resolvers { addresses: addresses.clone(), patience, attempts: 5, rotate: true }
        );
        let turns: Vec<SocketAddr> = resolvers.turns(3).take(3).collect();
        assert_eq!(turns, [addresses[1], addresses[0], addresses[1]]);
    }
}
