//! Automation of the project, run as `cargo xtask COMMAND`.

mod images;
mod packages;
mod process;
mod suite;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation of the project")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test, those with real containers included; installs Debian packages that are missing
    Test {
        /// Only what needs neither images nor a cluster
        #[arg(long)]
        quick: bool,
    },
    /// Make the images that the end-to-end tests run, in target/images
    Images,
    /// Check formatting, lints, licences, crate edges and the shape of every source file
    Tidy,
}

fn main() -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match Cli::parse().command {
        Command::Test { quick: true } => suite::quick(&workspace),
        Command::Test { quick: false } => suite::full(&workspace),
        Command::Images => {
            packages::install_missing()?;
            images::make_all(&workspace)
        }
        Command::Tidy => tidy::all(&workspace),
    }
}
