//! Who knows the names that are not the cluster's: the machine's resolvers, unless the ConfigMap
//! `kube-dns` in `kube-system` names others, for all names or for those of a domain. Follows the
//! keys `stubDomains` and `upstreamNameservers` of kube-dns.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::view::core::ConfigMap;
use client::Informer;
use parking_lot::RwLock;

use super::forward::Resolvers;
use super::{Name, ResolvConf};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Picks the ConfigMap out.
pub const SELECTOR: &str = "metadata.name=kube-dns";

const PORT: u16 = 53;

/// Where questions go that others must answer.
#[derive(Debug)]
pub struct Upstreams {
    resolv_conf: ResolvConf,
    settings: RwLock<Settings>,
}

/// What the ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    /// By domain, the longest names first.
    stub_domains: Vec<(Name, Vec<SocketAddr>)>,
    /// Instead of the machine's.
    nameservers: Vec<SocketAddr>,
}

impl Upstreams {
    pub fn new(resolv_conf: ResolvConf) -> Upstreams {
        Upstreams { resolv_conf, settings: RwLock::default() }
    }

    /// Whom to ask about a name.
    pub(super) fn of(&self, name: &Name) -> Resolvers {
        let settings = self.settings.read();
        match settings.stub_domains.iter().find(|(domain, _)| name.is_under(domain)) {
            Some((_, servers)) => Resolvers::new(servers.clone()),
            None if settings.nameservers.is_empty() => self.resolv_conf.resolvers(),
            None => Resolvers::new(settings.nameservers.clone()),
        }
    }

    /// Takes up what the ConfigMap says, now and whenever it changes.
    pub(super) async fn follow(self: Arc<Self>, config_maps: Informer<ConfigMap>) {
        let mut changes = config_maps.subscribe();
        while changes.recv().await.is_some() {
            let settings = config_maps.get(NAMESPACE, NAME).map(|map| Settings::of(&map)).unwrap_or_default();
            *self.settings.write() = settings;
        }
    }
}

impl Settings {
    /// What cannot be read is left out, and said.
    fn of(map: &ConfigMap) -> Settings {
        let stub_domains: BTreeMap<String, Vec<String>> = read(map, "stubDomains");
        let nameservers: Vec<String> = read(map, "upstreamNameservers");
        let mut domains: Vec<(Name, Vec<SocketAddr>)> = stub_domains
            .iter()
            .filter_map(|(domain, servers)| Some((Name::parse(domain)?, addresses(servers))))
            .filter(|(_, servers)| !servers.is_empty())
            .collect();
        domains.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.labels().len()));
        Settings { stub_domains: domains, nameservers: addresses(&nameservers) }
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(map: &ConfigMap, key: &str) -> T {
    let Some(text) = map.data.get(key) else { return T::default() };
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::warn!(key, %error, "ConfigMap kube-system/kube-dns cannot be read");
        T::default()
    })
}

/// Addresses with or without a port.
fn addresses(texts: &[String]) -> Vec<SocketAddr> {
    let parse = |text: &String| {
        let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        plain.or_else(|_| text.parse()).ok()
    };
    texts.iter().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use serde_json::json;

    #[test]
    fn the_longest_stub_domain_knows_a_name() {
        let map = json!({"data": {
            "stubDomains": "{\"acme.test\": [\"192.0.2.1\"], \"deep.acme.test\": [\"192.0.2.2:5353\", \"[fd00::2]:53\"], \"none.test\": [\"?\"]}",
            "upstreamNameservers": "[\"192.0.2.9\"]"}});
        let upstreams = Upstreams::new(ResolvConf::new("/nowhere".into(), vec![]));
        let ask = |name: &str| upstreams.of(&Name::parse(name).expect("a name")).addresses;
        assert!(ask("www.acme.test").is_empty(), "no settings and no file");
        *upstreams.settings.write() = Settings::of(&serde_json::from_value(map).expect("a ConfigMap"));
        assert_eq!(ask("www.acme.test"), [at("192.0.2.1:53")]);
        assert_eq!(ask("a.deep.acme.test"), [at("192.0.2.2:5353"), at("[fd00::2]:53")]);
        for name in ["notacme.test", "none.test"] {
            assert_eq!(ask(name), [at("192.0.2.9:53")], "{name}");
        }
    }
}
