//! The agent's side of the shim protocol.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::unistd::pipe2;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Command;

use crate::shim::protocol::{self, HEADER_BYTES, Header, Reply, Request, SOCKET_NAME, SPEC_NAME};
use crate::shim::spec::SandboxSpec;
use crate::shim::{READY, zygote};
use crate::{Error, Result};

/// A shim serves within milliseconds; one that does not is stuck.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection to a shim.
pub struct ShimConnection {
    stream: UnixStream,
}

impl ShimConnection {
    pub async fn open(sandbox_dir: &Path) -> io::Result<ShimConnection> {
        // Through the folder's descriptor: the path itself may be longer than a socket address.
        let dir = std::fs::File::open(sandbox_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd());
        Ok(ShimConnection { stream: UnixStream::connect(path).await? })
    }

    pub async fn call(&mut self, request: &impl Serialize, descriptors: &[OwnedFd]) -> Result<Reply> {
        let reply = async {
            self.send(request, descriptors).await?;
            self.receive().await
        };
        match reply.await {
            Ok(Reply::Failed(reason)) => Err(Error::Shim(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(Error::Shim(error.to_string())),
        }
    }

    async fn send(&mut self, request: &impl Serialize, descriptors: &[OwnedFd]) -> io::Result<()> {
        let frame = protocol::encode(request, descriptors.len())?;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let socket = self.stream.as_raw_fd();
        let send = || protocol::send_with_descriptors(socket, &frame, &raw);
        let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
        self.stream.write_all(&frame[sent..]).await
    }

    /// The next reply; `UnexpectedEof` when the shim is gone.
    pub async fn receive(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes).await?;
        let header = Header::decode(&bytes)?;
        let mut body = vec![0; header.length];
        self.stream.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// One request on a connection of its own.
pub async fn call(sandbox_dir: &Path, request: Request) -> Result<Reply> {
    let mut connection =
        ShimConnection::open(sandbox_dir).await.map_err(Error::io("connect to shim in", sandbox_dir))?;
    connection.call(&request, &[]).await
}

/// Starts shims through the zygote, which it starts in turn, anew if it has died.
pub struct Spawner {
    program: PathBuf,
    zygote: Mutex<Option<Arc<OwnedFd>>>,
}

impl Spawner {
    pub fn new(program: PathBuf) -> Spawner {
        Spawner { program, zygote: Mutex::new(None) }
    }

    /// Starts a sandbox's shim and waits until it serves; its process id.
    pub async fn start(&self, sandbox_dir: &Path, spec: &SandboxSpec) -> Result<i32> {
        let bytes = serde_json::to_vec(spec).map_err(|e| Error::Shim(e.to_string()))?;
        let spec_path = sandbox_dir.join(SPEC_NAME);
        std::fs::write(&spec_path, bytes).map_err(Error::io("write", &spec_path))?;
        let log_path = sandbox_dir.join("shim.log");
        let mut told = self.try_start(sandbox_dir, &log_path).await?;
        if told.has_nothing() && is_gone(&told.zygote) {
            // It died with the request, before there was a shim.
            told = self.try_start(sandbox_dir, &log_path).await?;
        }
        let pid = told.line.strip_prefix(READY).and_then(|pid| pid.trim().parse().ok());
        pid.ok_or_else(|| {
            let reason = told.line + &told.log;
            Error::Shim(if reason.is_empty() { "sandbox process did not start".to_owned() } else { reason })
        })
    }

    async fn try_start(&self, sandbox_dir: &Path, log_path: &Path) -> Result<Told> {
        let log = File::create(log_path).map_err(Error::io("create", log_path))?;
        let (zygote, output) =
            self.fork(sandbox_dir, log.into()).map_err(Error::io("start shim", &self.program))?;
        let mut line = String::new();
        let read = tokio::time::timeout(START_TIMEOUT, BufReader::new(output).read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) {
            line.clear();
        }
        line.truncate(line.trim_end().len());
        let log = std::fs::read_to_string(log_path).unwrap_or_default();
        Ok(Told { zygote, line, log })
    }

    /// Has a shim forked; what it prints can be read from the result.
    fn fork(&self, sandbox_dir: &Path, log: OwnedFd) -> io::Result<(Arc<OwnedFd>, pipe::Receiver)> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let mut zygote = self.zygote.lock();
        let asked = match &*zygote {
            Some(socket) => zygote::request(socket, sandbox_dir, &writer, &log),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        let socket = match (asked, &*zygote) {
            (Ok(()), Some(socket)) => socket.clone(),
            _ => {
                let socket = Arc::new(start_zygote(&self.program)?);
                zygote::request(&socket, sandbox_dir, &writer, &log)?;
                zygote.insert(socket).clone()
            }
        };
        Ok((socket, pipe::Receiver::from_owned_fd(reader)?))
    }
}

/// What was heard of a shim until it was ready, or had ended.
struct Told {
    /// Who was asked for it.
    zygote: Arc<OwnedFd>,
    line: String,
    log: String,
}

impl Told {
    fn has_nothing(&self) -> bool {
        self.line.is_empty() && self.log.is_empty()
    }
}

/// Whether there is no zygote at the other end any more. It never sends anything.
fn is_gone(zygote: &OwnedFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(zygote.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
}

/// Packets keep requests apart.
fn start_zygote(program: &Path) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut child = Command::new(program)
        .arg("runtime-shim")
        .arg(zygote::ARGUMENT)
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    // While we live its end must be waited for, or it stays a zombie.
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::debug!(%status, "zygote ended"),
            Err(error) => tracing::warn!(%error, "cannot wait for the zygote"),
        }
    });
    Ok(ours)
}
