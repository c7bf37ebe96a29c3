//! Flags of the API server that say which etcd has the cluster's state. Names are upstream's.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

/// Where the cluster's state is, when not in this cluster's own data.
#[derive(Args, Clone)]
#[command(next_help_heading = "Store")]
pub struct EtcdArgs {
    /// Keep the cluster's state in this etcd, which other API servers may use too: URLs of its members
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authority that certifies etcd's members, PEM
    #[arg(long, requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd, PEM
    #[arg(long, requires_all = ["etcd_servers", "etcd_keyfile"])]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, requires_all = ["etcd_servers", "etcd_certfile"])]
    pub etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(long, default_value = store::ETCD_PREFIX)]
    pub etcd_prefix: String,
}

impl EtcdArgs {
    /// How to reach etcd, if that is where the state is.
    pub fn config(&self) -> anyhow::Result<Option<store::EtcdConfig>> {
        if self.etcd_servers.is_empty() {
            return Ok(None);
        }
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let authority = self.etcd_cafile.as_ref().map(read).transpose()?;
        let identity = match (&self.etcd_certfile, &self.etcd_keyfile) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let tls = ::etcd::Tls { authority, identity };
        let servers = ::etcd::Config { servers: self.etcd_servers.clone(), tls };
        let mut config = store::EtcdConfig::new(servers, Arc::new(apiserver::EtcdCodec));
        config.prefix = self.etcd_prefix.clone();
        Ok(Some(config))
    }
}
