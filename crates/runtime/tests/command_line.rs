//! The shim as a program: what it says, and that it goes on when nobody can hear it.

use std::fs::File;
use std::process::{Command, Stdio};

#[test]
fn complaints_that_a_full_disk_does_not_take_are_lost() {
    let ended = |stderr: Stdio| {
        let mut shim = Command::new(env!("CARGO_BIN_EXE_runtime-shim"));
        let output = shim.arg("runtime-shim").stderr(stderr).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let usage = "usage: runtime-shim zygote|<sandbox folder>\n";
    assert_eq!(ended(Stdio::piped()), (Some(2), usage.to_owned()));
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    assert_eq!(ended(full.into()), (Some(2), String::new()));
}
