//! A second node of a cluster: a machine at the other end of the first one's wire, with `cox agent` on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::Value;

use crate::cluster::{Cluster, LIFE_DEADLINE};
use crate::images;
use crate::machine::{Machine, NODE_IP, SECOND_IP, SECOND_NAME};
use crate::process::{self, Background};
use crate::traces::{Scope, Traces};

/// What its settings say of a cluster that another node has to know.
struct Network {
    server: String,
    flags: Vec<String>,
}

impl Network {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let settings = cluster.data_on_machine().join("cluster.json");
        let text = fs::read(&settings).with_context(|| format!("cannot read {}", settings.display()))?;
        let settings: Value = serde_json::from_slice(&text)?;
        let first =
            |field: &str| settings[field][0].as_str().map(str::to_owned).context("a range is missing");
        let (pods, services) = (first("clusterCidrs")?, first("serviceCidrs")?);
        let dns =
            cluster.kubectl()?.run(&["get", "service/kube-dns", "-n", "kube-system", "-o", CLUSTER_IP])?;
        let flags =
            ["--cluster-cidr", &pods, "--service-cluster-ip-range", &services, "--cluster-dns", dns.trim()];
        Ok(Network {
            server: format!("https://{NODE_IP}:{}", settings["securePort"]),
            flags: flags.map(str::to_owned).to_vec(),
        })
    }
}

const CLUSTER_IP: &str = "jsonpath={.spec.clusterIP}";

/// What a node needs to be one, signed by the cluster's own authority.
const MAKE_CERTIFICATES: &str = "set -e
for name in kubelet serving; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=system:nodes/CN=system:node:$2 -keyout $name.key -out $name.csr
done
echo extendedKeyUsage=clientAuth > kubelet.ext
printf 'extendedKeyUsage=serverAuth\\nsubjectAltName=IP:%s,DNS:%s\\n' $3 $2 > serving.ext
for name in kubelet serving; do
  openssl x509 -req -in $name.csr -CA $1/ca.crt -CAkey $1/ca.key -CAcreateserial -CAserial serial -days 2 -extfile $name.ext -out $name.crt
done";

/// Drops all that comes and goes, as a cut wire does: nobody is told.
const CUT: &str = "add table inet cut
add chain inet cut in { type filter hook prerouting priority -400; }
add rule inet cut in iifname eth0 drop
add chain inet cut out { type filter hook postrouting priority 400; }
add rule inet cut out oifname eth0 drop
";

pub struct SecondNode {
    machine: Machine,
    /// The one it is wired to.
    first: Arc<Machine>,
    has_left: bool,
    /// Of the agent's cluster folders.
    name: String,
    dir: PathBuf,
    program: PathBuf,
    network: Network,
    agent: Mutex<Option<Background>>,
}

impl SecondNode {
    /// Joins a machine to a running cluster; Ready comes later.
    pub fn join(cluster: &Cluster) -> anyhow::Result<Self> {
        let machine = Machine::beside(cluster.machine())?;
        let dir = cluster.scratch()?.join("second");
        fs::create_dir_all(dir.join("home"))?;
        let node = SecondNode {
            machine,
            first: cluster.machine().clone(),
            has_left: false,
            name: cluster.neighbour(),
            dir,
            program: cluster.program(),
            network: Network::of(cluster)?,
            agent: Mutex::default(),
        };
        node.make_credentials(&cluster.data_on_machine())?;
        node.start()?;
        Ok(node)
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn make_credentials(&self, data: &Path) -> anyhow::Result<()> {
        let (mut command, pki) = (Command::new("sh"), data.join("pki"));
        command.args(["-c", MAKE_CERTIFICATES, "sh"]).arg(&pki).args([SECOND_NAME, SECOND_IP]);
        command.current_dir(&self.dir);
        process::run(command, "openssl".to_owned(), "")?.success()?;
        fs::copy(pki.join("ca.crt"), self.dir.join("ca.crt"))?;
        for component in ["proxy", "dns", "ingress"] {
            let from = data.join("kubeconfig").join(component);
            let text =
                fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
            let server = text.split_once("server: ").and_then(|(_, rest)| rest.lines().next());
            let server = server.context("a kubeconfig names its server")?;
            fs::write(self.dir.join(component), text.replace(server, &self.network.server))?;
        }
        let file = |name: &str| self.dir.join(name).display().to_string();
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: '{}', certificate-authority: '{}'}}}}], \
             users: [{{name: u, user: {{client-certificate: '{}', client-key: '{}'}}}}]}}",
            self.network.server,
            file("ca.crt"),
            file("kubelet.crt"),
            file("kubelet.key")
        );
        Ok(fs::write(self.dir.join("kubelet"), kubeconfig)?)
    }

    /// Starts the agent.
    pub fn start(&self) -> anyhow::Result<()> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.machine.background_command(&self.program);
        command.arg("agent").args(self.folders()).args(&self.network.flags);
        command.args(["--node-name", SECOND_NAME, "--node-ip", SECOND_IP]);
        for (flag, name) in [
            ("--kubeconfig", "kubelet"),
            ("--proxy-kubeconfig", "proxy"),
            ("--dns-kubeconfig", "dns"),
            ("--ingress-kubeconfig", "ingress"),
            ("--tls-cert-file", "serving.crt"),
            ("--tls-private-key-file", "serving.key"),
            ("--client-ca-file", "ca.crt"),
        ] {
            command.args([flag, &file(name)]);
        }
        command.env("HOME", self.dir.join("home"));
        let agent = Background::start(command, "cox agent".to_owned())?;
        *self.agent.lock().expect("nobody panics with it") = Some(agent);
        Ok(())
    }

    /// Kills the agent; what it started lives on.
    pub fn kill(&self) {
        *self.agent.lock().expect("nobody panics with it") = None;
    }

    pub fn import(&self, image: &str) -> anyhow::Result<()> {
        let archive = images::archive(image)?.display().to_string();
        self.machine.until("the agent answers", || {
            Ok(self.cox(&["image", "import"], &["--pin", &archive])?.status.success())
        })
    }

    fn cox(&self, command: &[&str], rest: &[&str]) -> anyhow::Result<process::Finished> {
        let mut made = self.machine.command(&self.program, LIFE_DEADLINE);
        made.args(command).args(self.folders()).args(rest).env("HOME", self.dir.join("home"));
        process::run(made, format!("cox {} on the second node", command.join(" ")), "")
    }

    fn folders(&self) -> Vec<String> {
        let folder = |name: &str| self.dir.join(name).display().to_string();
        let (data, etc, run) = (folder("data"), folder("etc"), folder("run"));
        let flags = ["--name", &self.name, "--data-dir", &data, "--config-dir", &etc, "--run-dir", &run];
        flags.map(str::to_owned).to_vec()
    }

    /// From now on nothing passes between this node and the other.
    pub fn cut_off(&self) -> anyhow::Result<()> {
        let mut command = self.machine.command(Path::new("nft"), LIFE_DEADLINE);
        command.args(["-f", "-"]);
        process::run(command, "nft".to_owned(), CUT)?.success().map(drop)
    }

    pub fn mend(&self) -> anyhow::Result<()> {
        self.machine.run("nft", &["delete", "table", "inet", "cut"])?.success().map(drop)
    }

    pub fn census(&self) -> anyhow::Result<Traces> {
        Traces::of(&self.scope())
    }

    pub fn difference_since(&self, before: &Traces) -> anyhow::Result<Vec<String>> {
        before.difference_now(&self.scope())
    }

    fn scope(&self) -> Scope<'_> {
        let data = self.dir.join("data").join(&self.name);
        let folders = ["runtime/sandboxes", "runtime/containers", "kubelet/pods", "log/pods"];
        Scope {
            machine: &self.machine,
            cgroup: &self.name,
            folders: folders.map(|name| data.join(name)).to_vec(),
        }
    }

    /// The node goes for good.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        self.has_left = true;
        self.kill();
        self.cox(&["down"], &["--purge"])?.success()?;
        self.machine.unplug(&self.first)
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        // The machine takes all with it but control groups.
        if !self.has_left
            && let Err(error) = self.leave()
        {
            eprintln!("the second node: {error:#}");
        }
    }
}
