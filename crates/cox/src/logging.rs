//! Where logs go: standard error, filtered by `COX_LOG` or `--verbose`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The environment variable that filters logs, in `tracing`'s notation: `info`, `kubelet=debug`.
const VARIABLE: &str = "COX_LOG";

pub fn start(verbose: bool) {
    let default = if verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
