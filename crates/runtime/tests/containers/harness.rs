//! A runtime of its own per test, reached over its socket as any CRI client does: folders, cgroup and image.
//! `Node::finish` removes all and checks that nothing is left; a test that panics removes what it can.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime::cri::*;
use runtime::{Cgroups, Config, CriClients, PodNetwork, PodNetworkRequest, Runtime, images};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const IMAGE: &str = "docker.io/library/busybox:test";
/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sandboxes with nothing but loopback.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        if pod.netns.exists() {
            Ok(vec![[10, 0, 0, 9].into()])
        } else {
            Err("no network namespace".to_owned())
        }
    }

    async fn detach(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

pub struct Node {
    pub runtime: Arc<Runtime>,
    pub cri: CriClients,
    pub dir: TempDir,
    pub cgroup_root: String,
    /// Ends the service on the socket.
    serving: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let runtime = self.runtime.clone();
        // The test's own executor is still running, but may not be blocked on from here.
        let cleaner = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(runtime.teardown_all())
        });
        if let Ok(Err(error)) = cleaner.join() {
            eprintln!("cannot clean up: {error}");
        }
    }
}

impl Node {
    pub async fn new() -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().unwrap();
        let cgroup_root = format!("/coxswain-test-{}-{number}", std::process::id());
        let runtime = open(dir.path(), &cgroup_root).await;
        images::import(runtime.images(), busybox_archive().as_slice()).unwrap();
        let (cri, serving) = serve(&runtime, dir.path()).await;
        Node { cri, runtime, dir, cgroup_root, serving }
    }

    /// The agent ends and starts again; shims live on.
    pub async fn restart(&mut self) {
        self.close();
        self.runtime = open(self.dir.path(), &self.cgroup_root).await;
        (self.cri, self.serving) = serve(&self.runtime, self.dir.path()).await;
    }

    /// The agent ends; shims live on.
    pub fn close(&self) {
        self.serving.cancel();
        self.runtime.close();
    }

    /// Removes everything and checks that nothing is left.
    pub async fn finish(self) {
        self.runtime.teardown_all().await.unwrap();
        self.close();
        let left = |dir: &str| std::fs::read_dir(self.dir.path().join(dir)).unwrap().count();
        assert_eq!([left("data/sandboxes"), left("data/containers"), left("state/sandboxes")], [0, 0, 0]);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts are left");
        let cgroups = Cgroups::detect().unwrap().dirs(&self.cgroup_root);
        assert!(!cgroups.iter().any(|dir| dir.exists()), "cgroups are left");
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "pod".to_owned(),
                uid: "uid-1".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: "pod-host".to_owned(),
            log_directory: self.log_dir().display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod", self.cgroup_root),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn sandbox(&mut self) -> String {
        let config = self.sandbox_config();
        self.run_sandbox(config).await
    }

    pub async fn run_sandbox(&mut self, config: PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.cri.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub async fn create(&mut self, sandbox: &str, config: ContainerConfig) -> String {
        self.try_create(sandbox, config).await.unwrap()
    }

    pub async fn try_create(
        &mut self,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.cri.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub async fn try_start(&mut self, container_id: &str) -> Result<(), tonic::Status> {
        let request = StartContainerRequest { container_id: container_id.to_owned() };
        self.cri.runtime.start_container(request).await.map(drop)
    }

    pub async fn run(&mut self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.try_start(&id).await.unwrap();
        id
    }

    /// Runs a shell script to its end; exit code and standard output.
    pub async fn script(&mut self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let log = self.log_dir().join(&config.log_path);
        let id = self.run(sandbox, config).await;
        let status = self.ended(&id).await;
        (status.exit_code, log_text(&log, "stdout"))
    }

    /// Waits until a container has written this to its standard output, all together.
    pub async fn logged(&self, name: &str, text: &str) {
        let log = self.log_dir().join(format!("{name}.log"));
        while log_text(&log, "stdout") != text {
            tokio::task::yield_now().await;
        }
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.cri.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits for a container's end by its events, as the kubelet does.
    pub async fn ended(&mut self, id: &str) -> ContainerStatus {
        let mut events =
            self.cri.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
        let wait = async {
            loop {
                let status = self.status(id).await;
                if status.state() == ContainerState::ContainerExited {
                    return status;
                }
                events.message().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
    }

    pub async fn exec(&mut self, id: &str, cmd: &[&str]) -> ExecSyncResponse {
        self.try_exec(id, cmd, 0).await.unwrap()
    }

    pub async fn try_exec(
        &mut self,
        id: &str,
        cmd: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.cri.runtime.exec_sync(request).await.map(tonic::Response::into_inner)
    }

    pub async fn stop(&mut self, id: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        self.cri.runtime.stop_container(request).await.unwrap();
    }
}

pub async fn open(dir: &Path, cgroup_root: &str) -> Arc<Runtime> {
    let config = Config {
        data_dir: dir.join("data"),
        state_dir: dir.join("state"),
        cgroup_root: cgroup_root.to_owned(),
        shim: env!("CARGO_BIN_EXE_runtime-shim").into(),
        network: Arc::new(NoNetwork),
        registries: dir.join("registries.yaml"),
    };
    Runtime::open(config).await.unwrap()
}

/// Puts a runtime on its socket, and connects to it.
async fn serve(runtime: &Arc<Runtime>, dir: &Path) -> (CriClients, CancellationToken) {
    let (socket, stop) = (dir.join("cri.sock"), CancellationToken::new());
    let listener = runtime::listen(&socket).unwrap();
    let (serving, stopping) = (runtime.clone(), stop.clone());
    tokio::spawn(async move { serving.serve(listener, stopping).await.unwrap() });
    (runtime::connect(&format!("unix://{}", socket.display())).await.unwrap(), stop)
}

/// A container that runs a shell script and logs to `NAME.log`.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        ..Default::default()
    }
}

pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// A container that runs until it is told to stop.
pub fn sleeper(name: &str) -> ContainerConfig {
    shell(name, "trap 'exit 0' TERM; while true; do sleep 1000 & wait $!; done")
}

/// The text of one stream of a CRI log.
pub fn log_text(path: &Path, stream: &str) -> String {
    let log = std::fs::read_to_string(path).unwrap();
    let mut text = String::new();
    for line in log.lines() {
        let mut parts = line.splitn(4, ' ');
        let (_, kind, tag, rest) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        if kind == stream {
            text.push_str(rest);
            if tag == "F" {
                text.push('\n');
            }
        }
    }
    text
}

/// What `docker save` would write of an image with Debian's static busybox.
pub fn busybox_archive() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        let mode = if dir == "tmp" { 0o1777 } else { 0o755 };
        append(&mut layer, dir, tar::EntryType::Directory, mode, &[]);
    }
    append(
        &mut layer,
        "bin/busybox",
        tar::EntryType::Regular,
        0o755,
        &std::fs::read("/bin/busybox").unwrap(),
    );
    for applet in [
        "sh", "sleep", "cat", "echo", "id", "ls", "grep", "head", "hostname", "stty", "mknod", "tty", "wc",
        "mount", "touch", "unshare", "dd", "nc", "env", "readlink", "ps", "kill", "seq", "mkdir", "stat",
        "chown", "tr", "umount", "ip",
    ] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n";
    let mut link = header(tar::EntryType::Symlink, 0o777, 0);
    layer.append_link(&mut link, "etc/resolv.conf", "../run/resolve/resolv.conf").unwrap();
    append(&mut layer, "etc/passwd", tar::EntryType::Regular, 0o644, passwd);
    append(
        &mut layer,
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\napp:x:1000:\nstaff:x:50:app\n",
    );
    archive("busybox:test", &[layer.into_inner().unwrap()])
}

/// What `docker save` would write of an image of these layers, the lowest first.
pub fn archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let quoted = |texts: Vec<String>| format!("{texts:?}");
    let diff_ids = quoted(layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect());
    let files: Vec<String> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]}},
            "rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#
    );
    let config_file = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        format!(r#"[{{"Config":"{config_file}","RepoTags":["{name}"],"Layers":{}}}]"#, quoted(files.clone()));
    let mut archive = tar::Builder::new(Vec::new());
    for (file, layer) in files.iter().zip(layers) {
        append(&mut archive, file, tar::EntryType::Regular, 0o644, layer);
    }
    append(&mut archive, &config_file, tar::EntryType::Regular, 0o644, config.as_bytes());
    append(&mut archive, "manifest.json", tar::EntryType::Regular, 0o644, manifest.as_bytes());
    archive.into_inner().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
    tar.append_data(&mut header(kind, mode, content.len() as u64), path, content).unwrap();
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
