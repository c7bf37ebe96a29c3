//! What a node must know of its cluster that the API has no kind for.

use std::net::IpAddr;

use anyhow::ensure;
use cluster::Settings;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the ConfigMap has it.
pub const KEY: &str = "network.json";
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    version: u32,
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
}

impl Network {
    pub fn of(settings: &Settings) -> Self {
        Network {
            version: VERSION,
            cluster_cidrs: settings.cluster_cidrs.clone(),
            service_cidrs: settings.service_cidrs.clone(),
            cluster_dns: settings.dns_service_ips(),
            cluster_domain: settings.cluster_domain.clone(),
        }
    }

    pub fn read(text: &str) -> anyhow::Result<Self> {
        let network: Network = serde_json::from_str(text)?;
        ensure!(
            network.version <= VERSION,
            "the cluster describes its network in version {}, this cox knows {VERSION}; use the cluster's version of cox",
            network.version
        );
        Ok(network)
    }
}
