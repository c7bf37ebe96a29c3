//! Components that run alone begin before there is an API server to work with.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Nobody listens there.
const KUBECONFIG: &str = r#"{"kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "t"}}]}"#;

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("can be killed");
        self.0.wait().expect("ends");
    }
}

fn start(component: &str, kubeconfig: &Path) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cox"));
    command.args([component, "--verbose", "--secure-port", "0", "--kubeconfig"]).arg(kubeconfig);
    Running(command.stderr(Stdio::piped()).spawn().expect("starts"))
}

#[test]
fn each_stands_for_the_lead() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG).expect("is written");
    for component in ["scheduler", "controller-manager"] {
        let mut running = start(component, &kubeconfig);
        let told = BufReader::new(running.0.stderr.take().expect("is piped")).lines();
        let mut before = Vec::new();
        let stands = told.map(|line| line.expect("is text")).any(|line| {
            before.push(line);
            before.last().is_some_and(|line| line.contains("waiting for the lead"))
        });
        assert!(stands, "{component} ended after {before:#?}");
    }
}
