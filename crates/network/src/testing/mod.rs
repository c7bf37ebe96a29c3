//! For tests against the real kernel: network namespaces that a test makes itself, each held by a
//! thread of its own in which the test runs what should happen there.

pub mod node;

use std::any::Any;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::link::Links;
use crate::netlink::{Family, Socket};

/// How long a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// When a datagram is taken to be lost.
const ASK_AGAIN: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace; it goes when this is dropped.
pub struct Namespace {
    pub path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A fresh namespace with loopback up.
    pub fn new() -> Namespace {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (announce, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests need root for network namespaces");
            let mut links = Links::new(Socket::open(Family::Route).expect("a route socket"));
            let loopback = links.find("lo").expect("list links").expect("loopback");
            links.set_up(loopback.index, None).expect("loopback comes up");
            let task = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
            announce.send(PathBuf::from(task)).expect("the maker waits");
            queue.into_iter().for_each(|job| job());
        });
        let path = path.recv().expect("the namespace was made");
        Namespace { path, jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `act` inside and returns what it returns; its panic is passed on.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = Box::new(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            answer.send(outcome).expect("the test waits");
        });
        self.jobs.as_ref().expect("open until dropped").send(job).expect("the thread lives");
        match result.recv().expect("the job answers") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `act` inside on a thread of its own.
    pub fn spawn<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // A thread is born into its maker's namespace.
        self.run(move || std::thread::spawn(act))
    }

    /// Runs a future inside, on a runtime whose blocking threads are inside too.
    pub fn block_on<T: Send + 'static>(&self, act: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(act())
        })
    }

    pub fn links(&self) -> Links {
        Links::new(self.run(|| Socket::open(Family::Route).expect("a route socket")))
    }

    /// Answers every TCP connection to the port with the peer's address, a space and `name`.
    pub fn serve_tcp(&self, address: IpAddr, port: u16, name: &'static str) {
        let listener = self.run(move || TcpListener::bind((address, port)).expect("the port is free"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let peer = stream.peer_addr().expect("connected").ip();
                std::io::Write::write_all(&mut stream, format!("{peer} {name}").as_bytes()).ok();
            }
        });
    }

    /// Answers every datagram to the port with the peer's address, a space and `name`.
    pub fn serve_udp(&self, address: IpAddr, port: u16, name: &'static str) {
        let socket = self.run(move || UdpSocket::bind((address, port)).expect("the port is free"));
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(format!("{} {name}", peer.ip()).as_bytes(), peer).ok();
            }
        });
    }

    /// What a TCP server answers to a connection from inside: the sender it saw, and its name.
    pub fn ask_tcp(&self, to: SocketAddr) -> std::io::Result<(IpAddr, String)> {
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer)?;
            Ok(parse(&answer))
        })
    }

    /// The same over UDP, asking again while no answer comes: a link that has just come up may lose
    /// the first datagrams.
    pub fn ask_udp(&self, to: SocketAddr, patience: Duration) -> std::io::Result<(IpAddr, String)> {
        self.run(move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(to)?;
            let deadline = Instant::now() + patience;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                socket.set_read_timeout(Some(left.clamp(Duration::from_millis(1), ASK_AGAIN)))?;
                match ask_connected(&socket) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {}
                    answer => return answer,
                }
            }
        })
    }
}

/// One question over a connected UDP socket.
pub fn ask_connected(socket: &UdpSocket) -> std::io::Result<(IpAddr, String)> {
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(parse(&String::from_utf8_lossy(&buffer[..length])))
}

fn parse(answer: &str) -> (IpAddr, String) {
    let (peer, name) = answer.split_once(' ').expect("a peer and a name");
    (peer.parse().expect("an address"), name.to_string())
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a namespace's thread panicked");
        }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
