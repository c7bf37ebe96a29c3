//! What the server says it is (`/version`).

use apimachinery::{Value, json};

/// The Kubernetes release whose API is served.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
const PATCH: &str = "2";

/// `v1.36.2+coxswain.0.1.0`: a release clients can compare, with the project's own version as build metadata.
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.{PATCH}+coxswain.{}", env!("CARGO_PKG_VERSION"))
}

pub fn version() -> Value {
    let platform = format!("{}/{}", std::env::consts::OS, go_arch(std::env::consts::ARCH));
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

/// The architecture as Go, and with it every Kubernetes client, spells it.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
