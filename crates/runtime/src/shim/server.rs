//! The shim's one loop: waits for requests, container output, attachments and ended children, and handles each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::complain;
use super::container::{Attachment, Container, Sink, Watched};
use super::launch::{self, Pod, Stdio};
use super::log::StreamKind;
use super::protocol::{self, HEADER_BYTES, Header, Reply, Request, receive_with_descriptors};
use super::spec::ProcessSpec;
use super::sys;

/// A peer that sends or takes a frame slower than this is dropped: the loop waits for it.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Exit code of a process ended by signal n is this plus n.
const SIGNAL_EXIT_BASE: i32 = 128;

pub struct Server {
    listener: UnixListener,
    signals: SignalFd,
    pod: Pod,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    containers: BTreeMap<String, Container>,
    /// The client that waits for each exec process.
    execs: BTreeMap<i32, u64>,
    /// Set by `Shutdown`: the loop ends once no container runs.
    closing: Option<u64>,
}

struct Client {
    stream: UnixStream,
    subscribed: bool,
}

enum Token {
    Listener,
    Signals,
    Client(u64),
    Container(String, Watched),
}

impl Server {
    pub fn new(listener: UnixListener, signals: SignalFd, pod: Pod) -> Server {
        Server {
            listener,
            signals,
            pod,
            clients: BTreeMap::new(),
            next_client: 0,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            closing: None,
        }
    }

    pub fn run(mut self) -> io::Result<()> {
        while !self.is_done() {
            let (tokens, mut entries) = self.poll_set();
            sys::poll(&mut entries)?;
            for (token, entry) in tokens.into_iter().zip(&entries).filter(|(_, entry)| entry.revents != 0) {
                self.dispatch(token, entry.revents)?;
            }
            self.containers.values_mut().for_each(Container::sweep);
        }
        if let Some(client) = self.closing {
            self.reply(client, &Reply::Done);
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.closing.is_some() && !self.containers.values().any(Container::is_running)
    }

    fn poll_set(&self) -> (Vec<Token>, Vec<libc::pollfd>) {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut entries = vec![
            entry(self.listener.as_raw_fd(), libc::POLLIN),
            entry(self.signals.as_raw_fd(), libc::POLLIN),
        ];
        for (id, client) in &self.clients {
            tokens.push(Token::Client(*id));
            entries.push(entry(client.stream.as_raw_fd(), libc::POLLIN));
        }
        for (id, container) in &self.containers {
            for (watched, fd, events) in container.watched() {
                tokens.push(Token::Container(id.clone(), watched));
                entries.push(entry(fd, events));
            }
        }
        (tokens, entries)
    }

    fn dispatch(&mut self, token: Token, events: i16) -> io::Result<()> {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => {
                self.signals.read_signal()?;
                self.reap();
                Ok(())
            }
            Token::Client(id) => {
                self.serve(id);
                Ok(())
            }
            Token::Container(id, watched) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.on_event(watched, events);
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PEER_TIMEOUT))?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        self.clients.insert(self.next_client, Client { stream, subscribed: false });
        self.next_client += 1;
        Ok(())
    }

    fn serve(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match read_request(&mut client.stream) {
            Ok((request, descriptors)) => {
                if let Some(reply) = self.handle(id, request, descriptors) {
                    self.reply(id, &reply);
                }
            }
            Err(_) => self.drop_client(id),
        }
    }

    fn drop_client(&mut self, id: u64) {
        self.clients.remove(&id);
        // Nobody is left to take the output of its processes.
        for (pid, _) in self.execs.iter().filter(|(_, client)| **client == id) {
            if let Err(error) = kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                complain(format_args!("kill exec process {pid}: {error}"));
            }
        }
        self.execs.retain(|_, client| *client != id);
    }

    fn reply(&mut self, id: u64, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let sent = protocol::encode(reply, 0).and_then(|frame| client.stream.write_all(&frame));
        if sent.is_err() {
            self.drop_client(id);
        }
    }

    /// `None`: the reply comes later.
    fn handle(&mut self, client: u64, request: Request, descriptors: Vec<OwnedFd>) -> Option<Reply> {
        let result = match request {
            Request::Start(spec) => {
                let reply = self.start(*spec);
                release_code_pages();
                reply
            }
            Request::Exec { container, process } => self.exec(client, &container, &process, descriptors),
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, [stdin, stdout, stderr], descriptors)
            }
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::Resize { container, width, height } => self.with(&container, |container| {
                container.resize(width, height).map_err(|e| format!("resize terminal: {e}"))
            }),
            Request::ReopenLog { container } => self
                .with(&container, |container| container.reopen_log().map_err(|e| format!("reopen log: {e}"))),
            Request::Forget { container } => {
                self.containers.retain(|id, known| *id != container || known.is_running());
                Ok(Reply::Done)
            }
            Request::State => Ok(self.state()),
            Request::Subscribe => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.subscribed = true;
                }
                Ok(self.state())
            }
            Request::Shutdown => {
                self.shut_down(client);
                return None;
            }
        };
        Some(result.unwrap_or_else(Reply::Failed))
    }

    fn with(
        &mut self,
        id: &str,
        act: impl FnOnce(&mut Container) -> Result<(), String>,
    ) -> Result<Reply, String> {
        let container =
            self.containers.get_mut(id).ok_or_else(|| format!("container {id} is not running"))?;
        act(container).map(|()| Reply::Done)
    }

    fn start(&mut self, spec: super::spec::ContainerSpec) -> Result<Reply, String> {
        if self.containers.get(&spec.id).is_some_and(Container::is_running) {
            return Err(format!("container {} is already running", spec.id));
        }
        let container = Container::start(spec, &self.pod)?;
        let reply = Reply::Started { pid: container.state.pid, started_at: container.state.started_at };
        self.containers.insert(container.state.id.clone(), container);
        Ok(reply)
    }

    fn exec(
        &mut self,
        client: u64,
        container: &str,
        process: &ProcessSpec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, String> {
        let container = self.containers.get(container).filter(|container| container.is_running());
        let init = container.ok_or("container is not running")?.state.pid;
        let stdio = stdio(process.tty, descriptors)?;
        let pid = launch::start_process(process, Pid::from_raw(init), &self.pod, stdio)?;
        self.execs.insert(pid.as_raw(), client);
        Ok(Reply::Started { pid: pid.as_raw(), started_at: super::log::now() })
    }

    fn attach(&mut self, id: &str, wanted: [bool; 3], descriptors: Vec<OwnedFd>) -> Result<Reply, String> {
        let mut files = descriptors.into_iter().map(File::from);
        let mut next = |wanted: bool| -> Result<Option<File>, String> {
            if !wanted {
                return Ok(None);
            }
            let file = files.next().ok_or("a descriptor is missing")?;
            sys::set_nonblocking(&file).map_err(|e| e.to_string())?;
            Ok(Some(file))
        };
        let mut attachment = Attachment { stdin: next(wanted[0])?, ..Attachment::default() };
        for (wanted, kind) in [(wanted[1], StreamKind::Stdout), (wanted[2], StreamKind::Stderr)] {
            attachment.sinks.extend(next(wanted)?.map(|file| Sink::new(kind, file)));
        }
        self.with(id, |container| {
            container.attach(attachment);
            Ok(())
        })
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<Reply, String> {
        let signal = Signal::try_from(signal).map_err(|_| format!("unknown signal {signal}"))?;
        self.with(id, |container| {
            if !container.is_running() {
                return Ok(());
            }
            kill(Pid::from_raw(container.state.pid), signal).map_err(|e| format!("send {signal}: {e}"))
        })
    }

    fn state(&self) -> Reply {
        let containers = self.containers.values().map(|container| container.state.clone()).collect();
        Reply::State { pid: std::process::id() as i32, containers }
    }

    fn shut_down(&mut self, client: u64) {
        self.closing = Some(client);
        let running = self.containers.values().filter(|container| container.is_running());
        for pid in running.map(|container| container.state.pid).chain(self.pod.init.map(Pid::as_raw)) {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                complain(format_args!("kill {pid}: {error}"));
            }
        }
    }

    /// Takes every child that has ended: container inits, exec processes, orphans handed to us.
    fn reap(&mut self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, SIGNAL_EXIT_BASE + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(_) => continue,
            };
            self.on_exit(pid.as_raw(), code);
        }
    }

    fn on_exit(&mut self, pid: i32, code: i32) {
        if let Some(client) = self.execs.remove(&pid) {
            self.reply(client, &Reply::ExecExited { code });
            return;
        }
        let ended = self.containers.values_mut().find(|c| c.is_running() && c.state.pid == pid);
        let Some(container) = ended else { return };
        let exit = container.finish(code);
        let id = container.state.id.clone();
        let subscribers: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.subscribed).map(|(id, _)| *id).collect();
        for client in subscribers {
            self.reply(client, &Reply::Exited { container: id.clone(), exit });
        }
    }
}

/// Starting takes code that waiting does not.
pub fn release_code_pages() {
    if let Err(error) = sys::release_code_pages() {
        complain(format_args!("release code pages: {error}"));
    }
}

fn stdio(tty: bool, descriptors: Vec<OwnedFd>) -> Result<Stdio, String> {
    if tty {
        let [console] = descriptors.try_into().map_err(|_| "a terminal takes one descriptor")?;
        return Ok(Stdio::Console(console));
    }
    let files = descriptors.try_into().map_err(|_| "a process takes three descriptors")?;
    Ok(Stdio::Files(files))
}

fn read_request(stream: &mut UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut bytes = [0; HEADER_BYTES];
    let (mut length, descriptors) = receive_with_descriptors(stream.as_raw_fd(), &mut bytes)?;
    while length > 0 && length < HEADER_BYTES {
        match stream.read(&mut bytes[length..])? {
            0 => length = 0,
            more => length += more,
        }
    }
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let header = Header::decode(&bytes)?;
    if header.descriptors != descriptors.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
    }
    let mut body = vec![0; header.length];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptors))
}
