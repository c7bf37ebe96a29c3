//! One container as its shim sees it: the process, its streams, its log, who is attached, how it ended.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, pipe2};

use super::complain;
use super::launch::{self, Pod, Stdio};
use super::log::{self, Lines, Log, StreamKind};
use super::protocol::{ContainerState, receive_descriptor};
use super::spec::{ContainerSpec, ExitRecord, PidMode};
use super::sys;

/// Bytes moved per readiness of a stream.
const CHUNK_BYTES: usize = 16 << 10;

/// A descriptor of the container that the server's poll set watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Output number n of the container.
    Output(usize),
    /// The container's stdin, which has bytes waiting for it.
    Stdin,
    /// The stdin of attachment n.
    AttachStdin(usize),
    /// An output of attachment n.
    Sink(usize, usize),
}

pub struct Container {
    pub state: ContainerState,
    spec: ContainerSpec,
    log: Log,
    outputs: Vec<Output>,
    /// Write end of the container's stdin; the terminal's master when there is one.
    stdin: Option<File>,
    /// Bytes from an attachment that the container has not taken yet; while there are some no more are read.
    stdin_pending: Vec<u8>,
    terminal: Option<OwnedFd>,
    attachments: Vec<Attachment>,
}

struct Output {
    /// `None` after its end.
    source: Option<File>,
    kind: StreamKind,
    lines: Lines,
}

#[derive(Default)]
pub struct Attachment {
    pub stdin: Option<File>,
    pub sinks: Vec<Sink>,
    /// Its client has sent all that it had to send into a stdin that stays open for others: what it has not been given
    /// yet is all that it gets.
    pub is_leaving: bool,
}

pub struct Sink {
    kind: StreamKind,
    /// `None` after the reader has left.
    file: Option<File>,
    /// Output the reader has not taken yet; while there is some the container's output is not read.
    pending: Vec<u8>,
}

impl Sink {
    pub fn new(kind: StreamKind, file: File) -> Sink {
        Sink { kind, file: Some(file), pending: Vec::new() }
    }

    fn offer(&mut self, output: &[u8]) {
        self.pending.extend_from_slice(output);
        self.flush();
    }

    fn flush(&mut self) {
        let Some(file) = &mut self.file else {
            self.pending.clear();
            return;
        };
        if write_some(file, &mut self.pending).is_err() {
            self.file = None;
            self.pending = Vec::new();
        }
    }
}

impl Container {
    pub fn start(spec: ContainerSpec, pod: &Pod) -> Result<Container, String> {
        let log = Log::open(spec.log_path.clone()).map_err(|e| format!("open log: {e}"))?;
        let (stdio, mut streams) = Streams::prepare(&spec).map_err(|e| format!("make stdio: {e}"))?;
        let pid = launch::start_container(&spec, pod, stdio)?;
        streams.take_terminal().map_err(|e| format!("take terminal: {e}"))?;
        let state =
            ContainerState { id: spec.id.clone(), pid: pid.as_raw(), started_at: log::now(), exit: None };
        let Streams { outputs, stdin, terminal, console: _ } = streams;
        let attachments = Vec::new();
        Ok(Container { state, spec, log, outputs, stdin, stdin_pending: Vec::new(), terminal, attachments })
    }

    pub fn is_running(&self) -> bool {
        self.state.exit.is_none()
    }

    pub fn reopen_log(&mut self) -> io::Result<()> {
        self.log.reopen()
    }

    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::set_window_size(terminal, width, height),
            None => Ok(()),
        }
    }

    pub fn attach(&mut self, attachment: Attachment) {
        if self.is_running() {
            self.attachments.push(attachment);
        }
    }

    /// What to poll for, as (descriptor, events).
    pub fn watched(&self) -> Vec<(Watched, i32, i16)> {
        let mut watched = Vec::new();
        for (index, output) in self.outputs.iter().enumerate() {
            if let Some(source) = &output.source
                && !self.is_blocked(output.kind)
            {
                watched.push((Watched::Output(index), source.as_raw_fd(), libc::POLLIN));
            }
        }
        if let Some(stdin) = &self.stdin
            && !self.stdin_pending.is_empty()
        {
            watched.push((Watched::Stdin, stdin.as_raw_fd(), libc::POLLOUT));
        }
        for (index, attachment) in self.attachments.iter().enumerate() {
            if let Some(stdin) = &attachment.stdin
                && self.stdin_pending.is_empty()
            {
                watched.push((Watched::AttachStdin(index), stdin.as_raw_fd(), libc::POLLIN));
            }
            for (sink_index, sink) in attachment.sinks.iter().enumerate() {
                // Without pending bytes only the reader's leaving (POLLERR) is of interest.
                let events = if sink.pending.is_empty() { 0 } else { libc::POLLOUT };
                if let Some(file) = &sink.file {
                    watched.push((Watched::Sink(index, sink_index), file.as_raw_fd(), events));
                }
            }
        }
        watched
    }

    fn is_blocked(&self, kind: StreamKind) -> bool {
        self.attachments
            .iter()
            .flat_map(|a| &a.sinks)
            .any(|sink| sink.kind == kind && !sink.pending.is_empty())
    }

    /// Handles an event that `watched` asked for.
    pub fn on_event(&mut self, watched: Watched, events: i16) {
        match watched {
            Watched::Output(index) => drop(self.read_output(index)),
            Watched::Stdin => self.write_stdin(),
            Watched::AttachStdin(index) => self.read_attached(index),
            Watched::Sink(index, sink) => {
                let sink = &mut self.attachments[index].sinks[sink];
                if events & libc::POLLERR != 0 {
                    sink.file = None;
                }
                sink.flush();
            }
        }
    }

    /// Lets go of attachments that are over. Called between rounds: within one, indices must hold.
    pub fn sweep(&mut self) {
        let ended = !self.is_running();
        for attachment in &mut self.attachments {
            if ended || attachment.is_leaving {
                attachment.stdin = None;
                attachment.sinks.retain(|sink| !sink.pending.is_empty());
            }
            attachment.sinks.retain(|sink| sink.file.is_some());
        }
        self.attachments.retain(|attachment| attachment.stdin.is_some() || !attachment.sinks.is_empty());
    }

    /// Reads once; false when there is nothing more for the moment, or ever.
    fn read_output(&mut self, index: usize) -> bool {
        let output = &mut self.outputs[index];
        let Some(source) = &mut output.source else { return false };
        let mut chunk = [0; CHUNK_BYTES];
        match source.read(&mut chunk) {
            Ok(length) if length > 0 => {
                output.lines.write(&mut self.log, &chunk[..length], log::now());
                let kind = output.kind;
                let sinks = self.attachments.iter_mut().flat_map(|attachment| &mut attachment.sinks);
                sinks.filter(|sink| sink.kind == kind).for_each(|sink| sink.offer(&chunk[..length]));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // A terminal whose other side is closed reports EIO.
            Ok(_) | Err(_) => {
                output.lines.finish(&mut self.log, log::now());
                output.source = None;
                false
            }
        }
    }

    fn read_attached(&mut self, index: usize) {
        let Some(stdin) = &mut self.attachments[index].stdin else { return };
        let mut chunk = [0; CHUNK_BYTES];
        match stdin.read(&mut chunk) {
            Ok(length) if length > 0 => {
                self.stdin_pending.extend_from_slice(&chunk[..length]);
                self.write_stdin();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                self.attachments[index].stdin = None;
                if self.spec.stdin_once && !self.spec.process.tty {
                    self.stdin = None;
                } else {
                    self.attachments[index].is_leaving = self.spec.stdin;
                }
            }
        }
    }

    fn write_stdin(&mut self) {
        let written = match &mut self.stdin {
            Some(stdin) => write_some(stdin, &mut self.stdin_pending),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if written.is_err() {
            self.stdin = None;
            self.stdin_pending = Vec::new();
        }
    }

    /// Records the end of the container's init.
    pub fn finish(&mut self, code: i32) -> ExitRecord {
        if matches!(self.spec.pid, PidMode::Node | PidMode::Pod | PidMode::Target(_)) {
            self.kill_rest();
        }
        for index in 0..self.outputs.len() {
            while self.read_output(index) {}
            let output = &mut self.outputs[index];
            output.lines.finish(&mut self.log, log::now());
            output.source = None;
        }
        (self.stdin, self.terminal) = (None, None);
        let oom_killed = self.spec.oom_file.as_deref().is_some_and(|file| oom_kills(file) > 0);
        let exit = ExitRecord { code, finished_at: log::now(), oom_killed };
        self.state.exit = Some(exit);
        if let Err(error) = write_record(&self.spec.exit_file, &exit) {
            complain(format_args!("record exit of {}: {error}", self.state.id));
        }
        exit
    }

    /// In a PID namespace that outlives the container its other processes must be ended by hand.
    fn kill_rest(&self) {
        let Some(cgroup) = self.spec.process.cgroups.first() else { return };
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                complain(format_args!("kill {pid} left by {}: {error}", self.state.id));
            }
        }
    }
}

/// Our ends of a container's streams.
struct Streams {
    outputs: Vec<Output>,
    stdin: Option<File>,
    terminal: Option<OwnedFd>,
    /// Where the terminal's master will arrive.
    console: Option<OwnedFd>,
}

impl Streams {
    fn prepare(spec: &ContainerSpec) -> io::Result<(Stdio, Streams)> {
        let mut streams = Streams { outputs: Vec::new(), stdin: None, terminal: None, console: None };
        if spec.process.tty {
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
            streams.console = Some(ours);
            return Ok((Stdio::Console(theirs), streams));
        }
        let stdin = if spec.stdin {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            sys::set_nonblocking(&writer)?;
            streams.stdin = Some(File::from(writer));
            reader
        } else {
            File::open("/dev/null")?.into()
        };
        let mut output = |kind| -> io::Result<OwnedFd> {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            sys::set_nonblocking(&reader)?;
            streams.outputs.push(Output { source: Some(File::from(reader)), kind, lines: Lines::new(kind) });
            Ok(writer)
        };
        let (stdout, stderr) = (output(StreamKind::Stdout)?, output(StreamKind::Stderr)?);
        Ok((Stdio::Files([stdin, stdout, stderr]), streams))
    }

    fn take_terminal(&mut self) -> io::Result<()> {
        let Some(console) = self.console.take() else { return Ok(()) };
        let master = receive_descriptor(&console)?;
        sys::set_nonblocking(&master)?;
        self.stdin = Some(File::from(master.try_clone()?));
        let (source, kind) = (Some(File::from(master.try_clone()?)), StreamKind::Stdout);
        self.outputs.push(Output { source, kind, lines: Lines::new(kind) });
        self.terminal = Some(master);
        Ok(())
    }
}

/// Writes as much as is taken; an error other than "not now" means the other side is gone.
fn write_some(file: &mut File, pending: &mut Vec<u8>) -> io::Result<()> {
    while !pending.is_empty() {
        match file.write(pending) {
            Ok(written) => drop(pending.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

/// Complete or absent: written beside and renamed.
fn write_record(path: &Path, exit: &ExitRecord) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    file.sync_data()?;
    fs::rename(&partial, path)
}
