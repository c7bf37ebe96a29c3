//! What `cox` says without a cluster. That there is such a test makes cargo build the program whenever tests are
//! built; the end-to-end tests run it.

use std::path::Path;
use std::process::{Command, Output};

fn cox(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cox")).args(args).output().expect("it was built")
}

/// Flags that lead to folders which do not exist.
fn nowhere() -> Vec<String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-cluster");
    [("--data-dir", "data"), ("--config-dir", "etc"), ("--run-dir", "run")]
        .iter()
        .flat_map(|(flag, folder)| [(*flag).to_owned(), dir.join(folder).display().to_string()])
        .collect()
}

#[test]
fn the_version_names_the_kubernetes_release() {
    let output = cox(&["version", "--output", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("v1.36"), "{text}");
}

#[test]
fn help_shows_the_two_commands_that_matter_most() {
    let output = cox(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("cox up --demo") && text.contains("cox down"), "{text}");
}

#[test]
fn where_no_cluster_is_every_command_says_how_to_start_one() {
    for command in [&["image", "list"][..], &["image", "import", "/dev/null"], &["kubeconfig"]] {
        let flags = nowhere();
        let args: Vec<&str> = command.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        let output = cox(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("cox up"), "{command:?}: {text}");
    }
}
