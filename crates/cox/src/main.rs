//! `cox`: the whole cluster in one binary. This crate reads flags and puts the parts together; it decides nothing.

mod cli;
mod commands;
mod control;
mod logging;
mod memory;
mod progress;
mod rbac;
mod services;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

fn main() -> ExitCode {
    // The shim must be what it is before any thread exists: containers are cloned from it.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "runtime-shim") {
        return runtime::shim_main(args);
    }
    let mut command = cli::Cli::command();
    let matches = command.get_matches_mut();
    let flags = cli::flags::in_force(&command, &matches);
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match commands::run(cli, flags) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
