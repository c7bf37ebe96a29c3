//! Flags about the addresses that nodes get for their pods. Names are upstream's.

use clap::Args;
use clap::builder::RangedI64ValueParser;
use controllers::NodeCidrMaskSizes;

#[derive(Args, Clone)]
#[command(next_help_heading = "Network")]
pub struct NodeIpamArgs {
    /// Prefix length of a node's IPv4 range: a node has at most as many pods as that has addresses
    #[arg(long, default_value_t = NodeCidrMaskSizes::default().ipv4, value_parser = RangedI64ValueParser::<u8>::new().range(1..=32))]
    pub node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 range
    #[arg(long, default_value_t = NodeCidrMaskSizes::default().ipv6, value_parser = RangedI64ValueParser::<u8>::new().range(1..=128))]
    pub node_cidr_mask_size_ipv6: u8,
}

impl NodeIpamArgs {
    pub fn mask_sizes(&self) -> NodeCidrMaskSizes {
        NodeCidrMaskSizes { ipv4: self.node_cidr_mask_size_ipv4, ipv6: self.node_cidr_mask_size_ipv6 }
    }
}
