//! Where logs go: standard error, filtered by `COX_LOG`, `--v` or `--verbose`. How much is logged can be changed later.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use client::debug::SetVerbosity;
use tracing_subscriber::EnvFilter;

use crate::cli::LogArgs;

/// The environment variable that filters logs, in `tracing`'s notation: `info`, `kubelet=debug`.
const VARIABLE: &str = "COX_LOG";

/// Changes the filter, once logging has begun.
static SET: OnceLock<Box<dyn Fn(i32) + Send + Sync>> = OnceLock::new();

pub fn start(args: &LogArgs) {
    let level = args.v.unwrap_or(if args.verbose { 1 } else { 0 });
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(name(level)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told of on standard error too, by a macro that panics when it cannot be.
        .log_internal_errors(false)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    subscriber.init();
    let set = move |level| {
        if let Err(error) = handle.reload(EnvFilter::new(name(level))) {
            tracing::error!(%error, "how much is logged cannot be changed");
        }
    };
    SET.get_or_init(|| Box::new(set));
}

/// Sets what `--v` would have set at the start.
pub fn setter() -> SetVerbosity {
    SetVerbosity::new(|level| {
        if let Some(set) = SET.get() {
            set(level);
        }
    })
}

/// What upstream tells in so many words from which level on (community/contributors/devel/sig-instrumentation/logging.md).
fn name(level: i32) -> &'static str {
    match level {
        ..=0 => "warn",
        1..=3 => "info",
        4..=7 => "debug",
        8.. => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the test log, in a process of its own.
    const LOGGING: &str = "COX_TEST_LOGGING";

    #[test]
    fn what_a_full_disk_does_not_take_is_lost_and_ends_nothing() {
        if std::env::var_os(LOGGING).is_some() {
            start(&LogArgs { verbose: false, v: None });
            tracing::error!("lost");
            return;
        }
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut again = std::process::Command::new(std::env::current_exe().expect("it runs"));
        again.args(["--exact", "logging::tests::what_a_full_disk_does_not_take_is_lost_and_ends_nothing"]);
        let again =
            again.arg("--nocapture").env(LOGGING, "1").stdout(std::process::Stdio::null()).stderr(full);
        assert!(again.status().expect("it starts").success());
    }

    #[test]
    fn higher_levels_tell_more() {
        assert_eq!([-1, 0, 1, 4, 8, i32::MAX].map(name), ["warn", "warn", "info", "debug", "trace", "trace"]);
    }
}
