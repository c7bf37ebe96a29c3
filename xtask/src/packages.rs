//! Debian packages that the end-to-end tests take programs from. Only what is missing is installed, and nothing that
//! is installed is started as a service.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::process::{find, run};

/// A program and the package that brings it.
const NEEDED: [(&str, &str); 18] = [
    ("busybox", "busybox-static"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("openssl", "openssl"),
    ("etcd", "etcd-server"),
    // Google's package of the same program conflicts with Debian's, so this one comes only where there is none.
    ("kubectl", "kubernetes-client"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    // Not in the search path; an absolute name is found as well.
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("ldd", "libc-bin"),
    ("unshare", "util-linux"),
    ("script", "bsdutils"),
    ("diff", "diffutils"),
];

/// A package's start-up scripts ask this program whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_NONE: &str = "#!/bin/sh\nexit 101\n";

pub fn install_missing() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let _policy = NoServices::declare()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
        .context("the tests with real containers need these packages; install them and run this again")
}

/// While this lives, installing a package starts no service.
struct NoServices {
    /// An administrator's own policy stays.
    ours: bool,
}

impl NoServices {
    fn declare() -> anyhow::Result<Self> {
        let policy = Path::new(POLICY);
        if policy.exists() {
            return Ok(NoServices { ours: false });
        }
        fs::write(policy, POLICY_NONE).with_context(|| format!("cannot write {POLICY}; run this as root"))?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("warning: {POLICY} must be removed by hand: {error}");
        }
    }
}
