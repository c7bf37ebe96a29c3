//! How a machine joins a cluster elsewhere, and what lets it in.

use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::{ClusterArgs, OutputArgs};

/// The flags of kubeadm's `join`.
#[derive(Args, Clone)]
#[command(next_help_heading = "Joining")]
pub struct JoinArgs {
    /// Join the cluster whose API server this is, as `cox token create` there says; once joined, nothing needs to be given
    #[arg(long, conflicts_with = "kubeconfig")]
    pub server: Option<String>,
    /// The token by which this machine is let in
    #[arg(long, requires = "server")]
    pub token: Option<String>,
    /// Hash of the public key of that cluster's authority, sha256:HEX; one of several
    #[arg(long, value_delimiter = ',', requires = "server")]
    pub discovery_token_ca_cert_hash: Vec<String>,
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print the command by which another machine joins with it
    Create {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// How long it lets machines in; 0 for ever
        #[arg(long, default_value = "24h", value_parser = ttl)]
        ttl: SignedDuration,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// How other machines reach the API server, https://HOST:PORT; where it says it is, if not given
        #[arg(long)]
        server: Option<String>,
    },
    /// List the tokens that there are
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Let nobody in by this token any more; machines that have joined stay
    Delete {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// A token, or what is before its dot
        token: String,
    },
}

fn ttl(text: &str) -> Result<SignedDuration, String> {
    let ttl = if text == "0" { Some(SignedDuration::ZERO) } else { apimachinery::time::parse_duration(text) };
    ttl.filter(|ttl| !ttl.is_negative()).ok_or_else(|| format!("{text:?} is not of the form 24h or 30m"))
}
