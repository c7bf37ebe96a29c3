//! What the process takes of the machine, and which program it is.

use std::fmt::Result;

use jiff::Timestamp;

use crate::prometheus::Metric;
use crate::version;

pub fn write(out: &mut String, now: Timestamp) -> Result {
    write_build(out)?;
    client::process::write(out, now);
    Ok(())
}

fn write_build(out: &mut String) -> Result {
    const BUILD: Metric<9> = Metric {
        name: "kubernetes_build_info",
        help: "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        labels: [
            "build_date",
            "compiler",
            "git_commit",
            "git_tree_state",
            "git_version",
            "go_version",
            "major",
            "minor",
            "platform",
        ],
    };
    const VERSION: Metric<4> = Metric {
        name: "version_info",
        help: "[ALPHA] Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
        labels: ["binary", "component", "emulation", "min_compat"],
    };
    let built = version::version();
    let text = |field: &str| built[field].as_str().unwrap_or_default().to_owned();
    let fields = [
        "buildDate",
        "compiler",
        "gitCommit",
        "gitTreeState",
        "gitVersion",
        "goVersion",
        "major",
        "minor",
        "platform",
    ];
    BUILD.write(out, "gauge", [(fields.map(|field| text(field).into()), 1.0)])?;
    let emulated = format!("{}.{}", text("emulationMajor"), text("emulationMinor"));
    let compatible = format!("{}.{}", text("minCompatibilityMajor"), text("minCompatibilityMinor"));
    let binary = text("gitVersion").trim_start_matches('v').to_owned();
    VERSION.write(out, "gauge", [([binary.into(), "kube".into(), emulated.into(), compatible.into()], 1.0)])
}
