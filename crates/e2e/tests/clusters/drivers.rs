//! The example drivers, each a process of its own on the node.

use std::time::Duration;

use e2e::{Background, Cluster, NODE_NAME, beside_the_tests};

/// What a driver may take to be known to the kubelet.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(60);

/// Starts the driver of that name, `own` among its arguments, and waits until the kubelet knows it.
pub fn start(cluster: &Cluster, name: &str, own: [&str; 2]) -> anyhow::Result<Background> {
    let path = beside_the_tests(name)?.display().to_string();
    let kubelet_dir = cluster.data().join("kubelet").display().to_string();
    let kubeconfig = cluster.home().join(".kube/config").display().to_string();
    let common = ["--node-name", NODE_NAME, "--kubelet-dir", &kubelet_dir, "--kubeconfig", &kubeconfig];
    let args: Vec<&str> = common.into_iter().chain(own).collect();
    let mut driver = cluster.machine().background(&path, &args)?;
    driver.line_with("has registered the plugin", REGISTRATION_DEADLINE)?;
    Ok(driver)
}
