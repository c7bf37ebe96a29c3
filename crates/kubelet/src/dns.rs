//! What a pod's `/etc/resolv.conf` and `/etc/hosts` say (follows the kubelet's `network/dns` and `ensureHostsFile`).

use api::view::core::Pod;
use runtime::cri;

use crate::config::Config;
use crate::pod::sandbox::hostname;

/// glibc's and the kubelet's limits.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The resolver settings of `text`, a resolv.conf.
fn parse(text: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

/// `host` is the node's own resolv.conf.
pub fn dns_config(pod: &Pod, config: &Config, host: &str) -> cri::DnsConfig {
    let cluster_first = match pod.spec.dns_policy.as_str() {
        "None" | "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !pod.spec.host_network,
    };
    let mut dns = match pod.spec.dns_policy.as_str() {
        "None" => cri::DnsConfig::default(),
        _ => parse(host),
    };
    if cluster_first && !config.kubelet.cluster_dns.is_empty() {
        let domain = &config.kubelet.cluster_domain;
        let mut searches =
            vec![format!("{}.svc.{domain}", pod.metadata.namespace), format!("svc.{domain}"), domain.clone()];
        searches.append(&mut dns.searches);
        dns.searches = searches;
        dns.servers = config.kubelet.cluster_dns.iter().map(ToString::to_string).collect();
        dns.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &pod.spec.dns_config {
        dns.servers.extend(own.nameservers.iter().cloned());
        dns.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let name = option.name.as_str();
            dns.options.retain(|known| known.split(':').next() != Some(name));
            dns.options.push(
                option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")),
            );
        }
    }
    dns.servers.truncate(NAMESERVERS_MAX);
    let mut seen = std::collections::BTreeSet::new();
    dns.searches.retain(|search| seen.insert(search.clone()));
    dns.searches.truncate(SEARCHES_MAX);
    dns
}

/// The hosts file of a pod that has its own network.
pub fn hosts_file(pod: &Pod, config: &Config, ips: &[String]) -> String {
    let (short, domain) = hostname(pod, &config.kubelet.cluster_domain);
    let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in ips {
        let names = if domain.is_empty() { short.clone() } else { format!("{short}.{domain}\t{short}") };
        text.push_str(&format!("{ip}\t{names}\n"));
    }
    text.push_str(&aliases(pod));
    text
}

/// The pod's `hostAliases`, also appended to the node's file for pods on its network.
pub fn aliases(pod: &Pod) -> String {
    if pod.spec.host_aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in &pod.spec.host_aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;
    use client::certificate::Replaceable;
    use client::debug::SetVerbosity;
    use client::zpages::{Flags, Pages};

    use super::*;
    use crate::certificate::Shown;
    use crate::kubeletconfig::KubeletConfiguration;

    fn config() -> Config {
        let tls = tls::server()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        Config {
            node_name: "n".into(),
            node_ip: [192, 0, 2, 1].into(),
            node_ip_other: None,
            root_dir: "/r".into(),
            local_path_root: None,
            node_labels: Default::default(),
            tls: Arc::new(tls),
            shown: Shown { serving: Replaceable::empty(), client: None },
            version: "v0".into(),
            kubelet: KubeletConfiguration {
                cluster_dns: vec![[10, 43, 0, 10].into()],
                cluster_domain: "cluster.local".into(),
                ..Default::default()
            },
            pages: Pages::new("kubelet", Flags::default()),
            set_verbosity: SetVerbosity::new(|_| ()),
            figures: Vec::new(),
        }
    }

    fn check(spec: apimachinery::Value, servers: &[&str], searches: &[&str], options: &[&str]) {
        let pod: Pod =
            apimachinery::from_value(json!({"metadata": {"namespace": "d"}, "spec": spec})).expect("a pod");
        let dns = dns_config(&pod, &config(), "nameserver 9.9.9.9\nsearch example.com\noptions timeout:1\n");
        assert_eq!(
            (dns.servers, dns.searches, dns.options),
            (
                servers.iter().map(ToString::to_string).collect(),
                searches.iter().map(ToString::to_string).collect(),
                options.iter().map(ToString::to_string).collect(),
            )
        );
    }

    #[test]
    fn the_policy_says_who_answers() {
        let cluster = ["d.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"];
        check(json!({"dnsPolicy": "ClusterFirst"}), &["10.43.0.10"], &cluster, &["ndots:5"]);
        check(
            json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
            &["9.9.9.9"],
            &["example.com"],
            &["timeout:1"],
        );
        check(json!({"dnsPolicy": "Default"}), &["9.9.9.9"], &["example.com"], &["timeout:1"]);
        let own = json!({"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        check(json!({"dnsPolicy": "None", "dnsConfig": own}), &["1.1.1.1"], &[], &["ndots:2", "edns0"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod() {
        let pod: Pod = apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "d"},
            "spec": {"subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}}))
        .expect("a pod");
        let text = hosts_file(&pod, &config(), &["10.0.0.2".to_owned()]);
        assert!(text.contains("10.0.0.2\tp.s.d.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\tx\ty\n"), "{text}");
    }
}
