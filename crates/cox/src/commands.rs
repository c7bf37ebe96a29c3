//! One module per command.

mod agent;
mod component;
mod configz;
mod demo;
mod detach;
mod down;
mod image;
mod join;
mod kubeconfig;
mod status;
mod token;
mod up;

use std::process::ExitCode;

use client::zpages::Flags;

use crate::cli::{Cli, Command, OutputFormat};
use crate::memory;

/// The flags are shown by what runs.
pub fn run(cli: Cli, flags: Flags) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::up(args, up::Parts::Everything, flags),
        Command::Server(args) => up::up(args, up::Parts::ControlPlane, flags),
        Command::Apiserver(args) => up::up(args, up::Parts::ApiServer, flags),
        Command::Down(args) => down::down(args),
        Command::Kubeconfig(args) => kubeconfig::print(&args),
        Command::Status(args) => status::show(&args),
        Command::Image(command) => image::run(command),
        Command::Token(command) => token::run(command),
        Command::Agent(args) => agent::agent(args, agent::Agent::Node, flags),
        Command::Kubelet(args) => agent::agent(args, agent::Agent::KubeletAlone, flags),
        Command::Scheduler(args) => component::scheduler(args, flags),
        Command::ControllerManager(args) => component::controller_manager(args, flags),
        Command::Runtime(args) => component::runtime(args),
        Command::Proxy(args) => component::proxy(args, flags),
        Command::Dns(args) => component::dns(args),
        Command::Version(args) => version(args.output),
        Command::DemoApp(args) => demo::serve(args.port),
    }
}

fn version(output: OutputFormat) -> anyhow::Result<ExitCode> {
    match output {
        OutputFormat::Text => {
            println!("cox {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), apimachinery::version::KUBERNETES)
        }
        OutputFormat::Json => println!(
            "{}",
            apimachinery::json!({"cox": env!("CARGO_PKG_VERSION"), "kubernetes": apimachinery::version::KUBERNETES})
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The runtime of a process that serves: few threads, as most work is short. More come for work that may block, and end
/// when nothing has needed them for ten seconds: a burst of work is over then.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().on_thread_stop(memory::forget_burst).build()?.block_on(future)
}

/// The runtime of a command that asks one question and ends.
fn block_on_here<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
