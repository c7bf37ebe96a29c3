//! What a cluster calls its links and tables on a host, so that several clusters share one.

/// The cluster whose names carry no suffix.
pub const DEFAULT_CLUSTER: &str = "coxswain";

/// `IFNAMSIZ` without the closing zero.
const LINK_NAME_MAX: usize = 15;

/// The names one cluster uses in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    cluster: String,
}

impl Names {
    pub fn of(cluster: &str) -> Names {
        Names { cluster: cluster.into() }
    }

    /// The link that carries the gateway address: `cox0` or `cox-NAME0`.
    pub fn host_link(&self) -> String {
        if self.cluster == DEFAULT_CLUSTER {
            return "cox0".into();
        }
        let name = format!("cox-{}0", self.cluster);
        if name.len() <= LINK_NAME_MAX { name } else { format!("cox-{:08x}0", hash(&[&self.cluster]) >> 32) }
    }

    /// Whether a link has the host link's form of name, of whichever cluster.
    pub fn is_host_link(name: &str) -> bool {
        name == "cox0" || (name.starts_with("cox-") && name.ends_with('0'))
    }

    /// The link to nodes that are not on a common network: `cox-vxlan`, or one derived from the name.
    pub fn tunnel(&self) -> String {
        if self.cluster == DEFAULT_CLUSTER {
            return "cox-vxlan".into();
        }
        format!("coxv{:08x}", hash(&[&self.cluster]) >> 32)
    }

    /// The host's end of a sandbox's veth pair.
    pub fn veth(&self, sandbox_id: &str) -> String {
        format!("cox{:012x}", hash(&[&self.cluster, sandbox_id]) >> 16)
    }

    /// The alias by which all veths of the cluster are found again.
    pub fn veth_alias(&self, sandbox_id: &str) -> String {
        format!("{}{sandbox_id}", self.veth_alias_prefix())
    }

    pub fn veth_alias_prefix(&self) -> String {
        format!("coxswain pod {}/", self.cluster)
    }

    /// nf_tables table of the pod network.
    pub fn pods_table(&self) -> String {
        self.table("pods")
    }

    /// nf_tables table of the service proxy.
    pub fn proxy_table(&self) -> String {
        self.table("proxy")
    }

    /// nf_tables table of network policies.
    pub fn policy_table(&self) -> String {
        self.table("policy")
    }

    fn table(&self, part: &str) -> String {
        if self.cluster == DEFAULT_CLUSTER {
            format!("coxswain-{part}")
        } else {
            format!("coxswain-{}-{part}", self.cluster)
        }
    }
}

/// FNV-1a over the parts, each ended by a byte no name contains. Names depend on it: never change it.
fn hash(parts: &[&str]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ_between_clusters() {
        assert_eq!(Names::of(DEFAULT_CLUSTER).host_link(), "cox0");
        assert_eq!(Names::of("blue").host_link(), "cox-blue0");
        let long = Names::of("a-cluster-with-a-long-name");
        assert!(long.host_link().len() <= LINK_NAME_MAX && long.host_link().starts_with("cox-"));
        assert!(long.veth("f00d").len() <= LINK_NAME_MAX);
        assert_ne!(long.veth("f00d"), Names::of("blue").veth("f00d"));
        assert_ne!(long.veth("f00d"), long.veth("f00e"));
    }
}
