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

use clap::Parser as _;

fn main() -> ExitCode {
    // The shim must be what it is before any thread exists: containers are cloned from it.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "runtime-shim") {
        return runtime::shim_main(args);
    }
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
