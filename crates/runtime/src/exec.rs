//! Processes in running containers and the streams to them: ExecSync, and what the streaming server leads to.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::container_spec::{World, translate};
use crate::cri::ExecSyncResponse;
use crate::record::ContainerRecord;
use crate::runtime::{Runtime, not_found};
use crate::shim::protocol::{Reply, Request, receive_descriptor};
use crate::shim::spec::ProcessSpec;
use crate::shim::{self, sys};
use crate::shim_client::ShimConnection;
use crate::streaming::{Backend, Duplex, StreamError, Streams};
use crate::{Error, Result};

/// Output of ExecSync past this is discarded, as the CRI demands (CVE-2022-1708).
const EXEC_SYNC_OUTPUT_MAX: usize = 16 << 20;
/// How long after a command's end its output is still awaited: a child it left behind may hold the pipe for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const COPY_BUFFER_BYTES: usize = 16 << 10;

impl Runtime {
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout_seconds: i64,
    ) -> Result<ExecSyncResponse> {
        let process = self.exec_process(id, cmd, false)?;
        let stdin = OwnedFd::from(File::open("/dev/null").map_err(Error::io("open", "/dev/null".as_ref()))?);
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let mut running = self.start_process(id, process, vec![stdin, stdout_end, stderr_end]).await?;
        let collect = async {
            let ended = CancellationToken::new();
            let wait = async {
                let code = running.exit_code().await;
                ended.cancel();
                code
            };
            let (stdout, stderr) = (collect(stdout, &ended), collect(stderr, &ended));
            let (code, stdout, stderr) = tokio::join!(wait, stdout, stderr);
            Ok(ExecSyncResponse { stdout, stderr, exit_code: code? })
        };
        if timeout_seconds <= 0 {
            return collect.await;
        }
        // Leaving drops the connection, whereupon the shim kills the process.
        tokio::time::timeout(Duration::from_secs(timeout_seconds.unsigned_abs()), collect).await.unwrap_or_else(|_| {
            Err(Error::DeadlineExceeded(format!(
                "failed to exec in container: timeout {timeout_seconds}s exceeded: context deadline exceeded"
            )))
        })
    }

    /// The container's own process settings with another command.
    fn exec_process(&self, id: &str, args: Vec<String>, tty: bool) -> Result<ProcessSpec> {
        let container = self.running(id)?;
        let sandbox = self.sandbox(&container.sandbox_id)?;
        let image = self.images.get(&container.image_id).map(|image| image.config).unwrap_or_default();
        let mut container = container;
        container.config.command = args;
        container.config.args = Vec::new();
        container.config.tty = tty;
        // Joined with the container's own namespaces: how those were made no longer matters.
        if let Some(security) =
            container.config.linux.as_mut().and_then(|linux| linux.security_context.as_mut())
        {
            security.namespace_options = None;
        }
        let world = World {
            sandbox: &sandbox,
            container: &container,
            image: &image,
            sandbox_dir: &self.sandbox_dir(&sandbox.id),
            container_dir: &self.container_dir(&container.id),
            layers_dir: &self.images.layers_dir(),
            cgroups: self.cgroups.dirs(&container.cgroup),
            cgroup_v2: self.cgroups.is_v2(),
            oom_file: None,
            host_devices: Vec::new(),
            target_pid: None,
        };
        translate(&world).map(|spec| spec.process).map_err(Error::InvalidArgument)
    }

    fn running(&self, id: &str) -> Result<ContainerRecord> {
        let container = self.container(id)?;
        if container.is_running() {
            return Ok(container);
        }
        Err(Error::FailedPrecondition(format!("container {} is not running", container.id)))
    }

    async fn start_process(
        &self,
        id: &str,
        process: ProcessSpec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<RunningProcess> {
        let container = self.running(id)?;
        let mut connection = self.shim_of(&container).await?;
        let request = Request::Exec { container: container.id, process: Box::new(process) };
        match connection.call(&request, &descriptors).await? {
            Reply::Started { .. } => Ok(RunningProcess { connection }),
            other => Err(Error::Shim(format!("unexpected answer {other:?}"))),
        }
    }

    async fn shim_of(&self, container: &ContainerRecord) -> Result<ShimConnection> {
        let dir = self.sandbox_dir(&container.sandbox_id);
        ShimConnection::open(&dir).await.map_err(Error::io("connect to shim in", &dir))
    }

    async fn exec(&self, id: &str, cmd: Vec<String>, tty: bool, io: Streams) -> Result<i32> {
        let process = self.exec_process(id, cmd, tty)?;
        if tty {
            return self.exec_in_terminal(id, process, io).await;
        }
        let (stdin, stdin_end) = input_pipe()?;
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let mut running = self.start_process(id, process, vec![stdin_end, stdout_end, stderr_end]).await?;
        let ended = CancellationToken::new();
        let wait = async {
            let code = running.exit_code().await;
            ended.cancel();
            code
        };
        let input = until(&ended, Duration::ZERO, copy(io.stdin, Some(stdin)));
        let output = until(&ended, DRAIN_TIMEOUT, copy(Some(stdout), io.stdout));
        let errors = until(&ended, DRAIN_TIMEOUT, copy(Some(stderr), io.stderr));
        let (code, ..) = tokio::join!(wait, input, output, errors);
        code
    }

    async fn exec_in_terminal(&self, id: &str, process: ProcessSpec, mut io: Streams) -> Result<i32> {
        let failed = |error: io::Error| Error::Shim(format!("terminal: {error}"));
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(|e| failed(e.into()))?;
        let mut running = self.start_process(id, process, vec![theirs]).await?;
        // Sent before the process was reported as started: there already.
        let master = receive_descriptor(&ours).map_err(failed)?;
        sys::set_nonblocking(&master).map_err(failed)?;
        let reader =
            pipe::Receiver::from_owned_fd_unchecked(master.try_clone().map_err(failed)?).map_err(failed)?;
        let writer =
            pipe::Sender::from_owned_fd_unchecked(master.try_clone().map_err(failed)?).map_err(failed)?;
        let ended = CancellationToken::new();
        let wait = async {
            let code = running.exit_code().await;
            ended.cancel();
            code
        };
        let mut sizes = io.resize.take();
        let resize = until(&ended, Duration::ZERO, async {
            while let Some(size) = next(&mut sizes).await {
                if let Err(error) = sys::set_window_size(&master, size.width, size.height) {
                    tracing::debug!(%error, "cannot resize terminal");
                }
            }
        });
        let input = until(&ended, Duration::ZERO, copy_into_terminal(io.stdin, writer));
        let output = until(&ended, DRAIN_TIMEOUT, copy(Some(reader), io.stdout));
        let (code, ..) = tokio::join!(wait, resize, input, output);
        code
    }

    /// Lasts until the container ends, or until the shim lets go of the streams: it does where the container's stdin
    /// outlives the client's (follows containerd's `ContainerIO.Attach`).
    async fn attach(&self, id: &str, mut io: Streams) -> Result<()> {
        let container = self.running(id)?;
        let mut descriptors = Vec::new();
        let (stdin, stdout, stderr) = (io.stdin.take(), io.stdout.take(), io.stderr.take());
        let request = Request::Attach {
            container: container.id.clone(),
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        };
        let mut input = None;
        if stdin.is_some() {
            let (sender, end) = input_pipe()?;
            input = Some(sender);
            descriptors.push(end);
        }
        let mut source = |wanted: bool| -> Result<Option<pipe::Receiver>> {
            if !wanted {
                return Ok(None);
            }
            let (receiver, end) = output_pipe()?;
            descriptors.push(end);
            Ok(Some(receiver))
        };
        let (output, errors) = (source(stdout.is_some())?, source(stderr.is_some())?);
        self.shim_of(&container).await?.call(&request, &descriptors).await?;
        drop(descriptors);
        let ended = CancellationToken::new();
        let wait = async {
            let outcome = tokio::select! {
                exited = self.exit_code(&container.id) => exited.map(drop),
                () = ended.cancelled() => Ok(()),
            };
            ended.cancel();
            outcome
        };
        let mut sizes = io.resize.take();
        let resize = until(&ended, Duration::ZERO, async {
            while let Some(size) = next(&mut sizes).await {
                self.resize(&container, size.width, size.height).await;
            }
        });
        let is_seen = output.is_some() || errors.is_some();
        let end = |ends: bool| {
            if ends {
                ended.cancel()
            }
        };
        // Who sees nothing has been served when all has been said, who sees something at its end.
        let input = async {
            until(&ended, Duration::ZERO, copy(stdin, input)).await;
            end(!is_seen);
        };
        let outputs = async {
            let output = until(&ended, DRAIN_TIMEOUT, copy(output, stdout));
            let errors = until(&ended, DRAIN_TIMEOUT, copy(errors, stderr));
            tokio::join!(output, errors);
            end(is_seen);
        };
        let (outcome, ..) = tokio::join!(wait, resize, input, outputs);
        outcome
    }

    async fn resize(&self, container: &ContainerRecord, width: u16, height: u16) {
        let request = Request::Resize { container: container.id.clone(), width, height };
        if let Err(error) = crate::shim_client::call(&self.sandbox_dir(&container.sandbox_id), request).await
        {
            tracing::debug!(%error, "cannot resize terminal");
        }
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16, stream: Box<dyn Duplex>) -> Result<()> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready {
            return Err(Error::FailedPrecondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let netns = shim::network_namespace(nix::unistd::Pid::from_raw(sandbox.shim));
        let namespace = File::open(&netns).map_err(Error::io("open network namespace", &netns))?;
        let connected = connect_in(namespace, port).await;
        let peer = connected.map_err(|error| {
            Error::FailedPrecondition(format!(
                "failed to connect to localhost:{port} inside sandbox: {error}"
            ))
        })?;
        if let Err(error) = crate::relay::relay(stream, peer).await {
            tracing::debug!(%error, port, "forwarded connection ended");
        }
        Ok(())
    }
}

/// An exec process; dropping this kills it.
struct RunningProcess {
    connection: ShimConnection,
}

impl RunningProcess {
    async fn exit_code(&mut self) -> Result<i32> {
        match self.connection.receive().await {
            Ok(Reply::ExecExited { code }) => Ok(code),
            Ok(other) => Err(Error::Shim(format!("unexpected message {other:?}"))),
            Err(error) => Err(Error::Shim(format!("lost: {error}"))),
        }
    }
}

/// Connects from a thread of its own: a thread that has joined another network namespace is of no other use.
async fn connect_in(namespace: File, port: u16) -> io::Result<tokio::net::TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let connect = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let local = |ip: IpAddr| std::net::TcpStream::connect(SocketAddr::new(ip, port));
            let stream = local(Ipv4Addr::LOCALHOST.into()).or_else(|_| local(Ipv6Addr::LOCALHOST.into()))?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        // The asker may have left.
        drop(sender.send(connect()));
    });
    let stream = receiver.await.map_err(io::Error::other)?;
    stream.and_then(tokio::net::TcpStream::from_std)
}

fn output_pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let failed = |error: io::Error| Error::Shim(format!("make pipe: {error}"));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    Ok((pipe::Receiver::from_owned_fd(reader).map_err(failed)?, writer))
}

fn input_pipe() -> Result<(pipe::Sender, OwnedFd)> {
    let failed = |error: io::Error| Error::Shim(format!("make pipe: {error}"));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    Ok((pipe::Sender::from_owned_fd(writer).map_err(failed)?, reader))
}

/// Runs `work` until it is done, or until `grace` after the process has ended.
async fn until(ended: &CancellationToken, grace: Duration, work: impl Future<Output = ()>) {
    let over = async {
        ended.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = work => {}
        () = over => {}
    }
}

async fn next<T>(receiver: &mut Option<tokio::sync::mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => None,
    }
}

/// Copies to the end of `from`, then closes `to`. A missing target discards, so that the writer never blocks.
async fn copy(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    let Some(mut from) = from else { return };
    let mut to = to;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        if let Some(sink) = &mut to
            && (sink.write_all(&buffer[..length]).await.is_err() || sink.flush().await.is_err())
        {
            to = None;
        }
    }
    if let Some(mut sink) = to
        && let Err(error) = sink.shutdown().await
    {
        tracing::debug!(%error, "stream was closed by its reader");
    }
}

/// A terminal has no end of input but the character for it.
async fn copy_into_terminal(from: Option<impl AsyncRead + Unpin>, mut to: pipe::Sender) {
    const END_OF_TRANSMISSION: u8 = 4;
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    while let Ok(length) = from.read(&mut buffer).await {
        let bytes = if length == 0 { &[END_OF_TRANSMISSION][..] } else { &buffer[..length] };
        if to.write_all(bytes).await.is_err() || length == 0 {
            return;
        }
    }
}

/// Reads to the end, or to the drain timeout after the process's end; keeps no more than the CRI allows.
async fn collect(mut from: pipe::Receiver, ended: &CancellationToken) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    until(ended, DRAIN_TIMEOUT, async {
        while let Ok(length) = from.read(&mut buffer).await {
            if length == 0 {
                return;
            }
            let room = EXEC_SYNC_OUTPUT_MAX - kept.len();
            kept.extend_from_slice(&buffer[..length.min(room)]);
        }
    })
    .await;
    kept
}

/// Leads the streaming server's streams into this runtime.
struct ExecBackend {
    /// Weak: the runtime owns the server that owns this.
    runtime: Weak<Runtime>,
}

impl ExecBackend {
    fn runtime(&self) -> std::result::Result<Arc<Runtime>, StreamError> {
        self.runtime.upgrade().ok_or_else(|| StreamError::failed("serve stream", "the runtime is closing"))
    }
}

#[async_trait]
impl Backend for ExecBackend {
    async fn exec(
        &self,
        id: &str,
        cmd: Vec<String>,
        tty: bool,
        io: Streams,
    ) -> std::result::Result<i32, StreamError> {
        self.runtime()?.exec(id, cmd, tty, io).await.map_err(|e| stream_error(EXEC, id, e))
    }

    async fn attach(&self, id: &str, _tty: bool, io: Streams) -> std::result::Result<(), StreamError> {
        self.runtime()?.attach(id, io).await.map_err(|e| stream_error("failed to attach to container", id, e))
    }

    async fn port_forward(
        &self,
        id: &str,
        port: u16,
        stream: Box<dyn Duplex>,
    ) -> std::result::Result<(), StreamError> {
        self.runtime()?.port_forward(id, port, stream).await.map_err(|e| stream_error("port forward", id, e))
    }
}

/// What failed, as containerd says it: why may begin with `exec: `.
const EXEC: &str = "failed to exec in container";

fn stream_error(operation: &'static str, id: &str, error: Error) -> StreamError {
    match error {
        Error::NotFound { kind, id } => StreamError::NotFound { kind, id },
        Error::FailedPrecondition(_) if operation != "port forward" => StreamError::NotRunning(id.to_owned()),
        error => StreamError::failed(operation, crate::error::with_sources(&error)),
    }
}

/// A port as the CRI writes it.
pub(crate) fn port(number: i32) -> Result<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| Error::InvalidArgument(format!("port {number} is not between 1 and 65535")))
}

/// The URL a stream is served at, or why there is none.
pub(crate) fn url(result: std::result::Result<String, crate::streaming::RequestError>) -> Result<String> {
    result.map_err(|error| Error::InvalidArgument(error.to_string()))
}

impl Runtime {
    /// What the streaming server serves: exec, attach and port-forward without HTTP.
    pub fn streaming_backend(self: &Arc<Self>) -> Arc<dyn Backend> {
        Arc::new(ExecBackend { runtime: Arc::downgrade(self) })
    }

    /// The streaming server, for requests that name a running container.
    pub(crate) fn streams_for(&self, container_id: &str) -> Result<(Arc<crate::streaming::Server>, String)> {
        let container = self.running(container_id)?;
        Ok((self.streaming_server()?, container.id))
    }

    pub(crate) fn streaming_server(&self) -> Result<Arc<crate::streaming::Server>> {
        self.streaming.get().cloned().ok_or_else(|| not_found("server", "streaming"))
    }
}
