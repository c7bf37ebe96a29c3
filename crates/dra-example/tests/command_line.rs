//! The program itself, as a person starts it.

use std::process::Command;

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    let root = tempfile::tempdir().expect("a folder");
    let absent = root.path().join("absent");
    let ended = Command::new(env!("CARGO_BIN_EXE_dra-example"))
        .args(["--node-name", "n", "--kubeconfig"])
        .arg(&absent)
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains(&absent.display().to_string()), "{said}");
}
