//! The agent's side of the shim protocol.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::shim::READY;
use crate::shim::protocol::{self, HEADER_BYTES, Header, Reply, Request, SOCKET_NAME, SPEC_NAME};
use crate::shim::spec::SandboxSpec;
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

/// Starts a sandbox's shim and waits until it serves; its process id.
pub async fn start(program: &Path, sandbox_dir: &Path, spec: &SandboxSpec) -> Result<i32> {
    let bytes = serde_json::to_vec(spec).map_err(|e| Error::Shim(e.to_string()))?;
    let spec_path = sandbox_dir.join(SPEC_NAME);
    std::fs::write(&spec_path, bytes).map_err(Error::io("write", &spec_path))?;
    let log_path = sandbox_dir.join("shim.log");
    let log = std::fs::File::create(&log_path).map_err(Error::io("create", &log_path))?;
    let mut child = Command::new(program)
        .arg("runtime-shim")
        .arg(sandbox_dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::io("start shim", program))?;
    let pid = child.id().ok_or_else(|| Error::Shim("ended at once".to_owned()))?;
    let stdout = child.stdout.take().ok_or_else(|| Error::Shim("has no output".to_owned()))?;
    let mut line = String::new();
    let read = tokio::time::timeout(START_TIMEOUT, BufReader::new(stdout).read_line(&mut line)).await;
    let ready = matches!(read, Ok(Ok(_))) && line.trim_end() == READY;
    if !ready {
        child.kill().await.map_err(Error::io("kill shim", program))?;
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        let reason = format!("{}{log}", line.trim_end());
        return Err(Error::Shim(if reason.is_empty() {
            "it did not become ready".to_owned()
        } else {
            reason
        }));
    }
    // The shim outlives us; while we live its end must be waited for, or it stays a zombie.
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::debug!(pid, %status, "shim ended"),
            Err(error) => tracing::warn!(pid, %error, "cannot wait for shim"),
        }
    });
    Ok(pid as i32)
}
