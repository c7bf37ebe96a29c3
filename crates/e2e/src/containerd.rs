//! Debian's containerd with runc on a test's machine: own configuration, state and socket, and a pod network by
//! plugins, since a runtime of its own makes its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;

use crate::images;
use crate::machine::Machine;
use crate::process::Background;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// What containerd keeps the sandbox's namespaces with.
const SANDBOX_IMAGE: &str = "pause-1";
/// Where the CRI's images are.
const NAMESPACE: &str = "k8s.io";
/// containerd 1.6 puts the sockets of its shims here, whatever it is told. A file system of the machine's own is
/// mounted over it: an abandoned one goes with the machine.
const SHIM_SOCKETS: &str = "/run/containerd";

const CONFIG: &str = r#"version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "test.local/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "DIR/runc"
"#;

/// A bridge; the addresses are a part of the cluster's range for pods.
const NETWORK: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "DIR/ipam", "ranges": [[{"subnet": "10.42.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

pub struct Containerd {
    dir: PathBuf,
    /// Locked by nobody; it makes this shareable between threads.
    _serving: Mutex<Background>,
}

impl Containerd {
    pub fn start(machine: &Machine, dir: &Path) -> anyhow::Result<Self> {
        let in_dir = |text: &str| text.replace("DIR", &dir.display().to_string());
        fs::create_dir_all(dir.join("cni"))?;
        fs::write(dir.join("cni/10-pods.conflist"), in_dir(NETWORK))?;
        let config = dir.join("config.toml");
        fs::write(&config, in_dir(CONFIG)).with_context(|| format!("cannot write {}", config.display()))?;
        fs::create_dir_all(SHIM_SOCKETS)?;
        machine.run("mount", &["-t", "tmpfs", "sockets", SHIM_SOCKETS])?.success()?;
        let mut serving = machine.background("containerd", &["--config", &config.display().to_string()])?;
        serving.line_with("containerd successfully booted", START_DEADLINE)?;
        let containerd = Containerd { dir: dir.to_owned(), _serving: Mutex::new(serving) };
        containerd.import(machine, SANDBOX_IMAGE)?;
        Ok(containerd)
    }

    fn socket(&self) -> String {
        self.dir.join("containerd.sock").display().to_string()
    }

    /// What `cox up` is to be told.
    pub fn flags(&self) -> Vec<String> {
        let network = self.dir.join("cni").display().to_string();
        let endpoint = format!("unix://{}", self.socket());
        ["--container-runtime-endpoint", &endpoint, "--cni-conf-dir", &network].map(str::to_owned).to_vec()
    }

    pub fn import(&self, machine: &Machine, image: &str) -> anyhow::Result<()> {
        let archive = images::archive(image)?.display().to_string();
        let (socket, args) = (self.socket(), ["images", "import"]);
        let args = [&["--address", &socket, "--namespace", NAMESPACE], &args[..], &[&archive]].concat();
        machine.run("ctr", &args)?.success().map(drop)
    }
}
