//! An image registry of a test's own: Debian's `docker-registry` on the machine, filled by `skopeo`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::images;
use crate::machine::{Machine, NODE_IP};
use crate::process::{self, Background};

/// Where a registry without TLS is expected: on the machine itself.
const PLAIN: &str = "127.0.0.1:5000";
const TLS_PORT: u16 = 5443;
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How an authority and a certificate by it are made, in the current folder.
const MAKE_CERTIFICATE: &str = "set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-authority -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry -keyout tls.key -out tls.csr
echo subjectAltName=IP:$1 > names
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out tls.crt";

pub struct Registry {
    /// Host and port, as in an image's name.
    pub address: String,
    /// Of the registry's files.
    dir: PathBuf,
    is_tls: bool,
}

impl Registry {
    /// One on the machine's loopback address.
    pub fn plain(dir: &Path) -> Self {
        Registry { address: PLAIN.to_owned(), dir: dir.to_owned(), is_tls: false }
    }

    /// One on the machine's address, with a certificate by an authority that nobody knows.
    pub fn with_tls(dir: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", MAKE_CERTIFICATE, "sh", NODE_IP]).current_dir(dir);
        process::run(command, "openssl".to_owned(), "")?.success()?;
        Ok(Registry { address: format!("{NODE_IP}:{TLS_PORT}"), dir: dir.to_owned(), is_tls: true })
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Serves until what it returns is dropped; what was pushed stays.
    pub fn serve(&self, machine: &Machine) -> anyhow::Result<Background> {
        let (config, storage) = (self.dir.join("registry.yml"), self.dir.join("registry"));
        let file = |name: &str| self.dir.join(name).display().to_string();
        let tls = format!(", tls: {{certificate: {}, key: {}}}", file("tls.crt"), file("tls.key"));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{}'{}}}\n",
            storage.display(),
            self.address,
            if self.is_tls { &tls } else { "" }
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut registry =
            machine.background("docker-registry", &["serve", &config.display().to_string()])?;
        registry.line_with("listening on", START_DEADLINE)?;
        Ok(registry)
    }

    /// Puts one of the tests' images into it.
    pub fn push(&self, machine: &Machine, image: &str, to: &str) -> anyhow::Result<()> {
        let from = format!("oci-archive:{}", images::archive(image)?.display());
        let to = format!("docker://{}/{to}", self.address);
        let args = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to];
        machine.run("skopeo", &args)?.success().map(drop)
    }
}
