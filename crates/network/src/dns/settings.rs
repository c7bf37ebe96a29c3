//! What ConfigMaps of `kube-system` say about names that are not the cluster's. `coredns` holds a Corefile, as beside
//! CoreDNS; `coredns-custom` adds server blocks under `*.server` and directives for all names under `*.override`, as
//! k3s and AKS have it; `kube-dns` is the older way, `stubDomains` and `upstreamNameservers`. Directives that say how a
//! server runs, not what it answers, mean nothing here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::view::core::ConfigMap;

use super::Name;
use super::corefile::{self, Directive, ServerBlock};

/// The ConfigMaps that are read, in `kube-system`.
pub const NAMES: [&str; 3] = ["coredns", "coredns-custom", "kube-dns"];

const PORT: u16 = 53;

/// Of addresses in `hosts`, unless it says otherwise; CoreDNS' own.
const HOSTS_TTL: u32 = 3600;

/// The longest responses are kept where nothing is said of it, as by the Corefile that comes with Kubernetes.
const SUCCESS_TTL: Duration = Duration::from_secs(30);
const DENIAL_TTL: Duration = Duration::from_secs(5);

/// The same where `cache` names no time; CoreDNS' own.
const CACHE_SUCCESS_TTL: Duration = Duration::from_secs(3600);
const CACHE_DENIAL_TTL: Duration = Duration::from_secs(1800);

/// Directives that are about CoreDNS itself, or what is so anyway.
const MEANINGLESS: [&str; 14] = [
    "bufsize",
    "debug",
    "errors",
    "health",
    "import",
    "kubernetes",
    "lameduck",
    "loadbalance",
    "log",
    "loop",
    "minimal",
    "prometheus",
    "ready",
    "reload",
];

/// All that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The longest names first.
    domains: Vec<Domain>,
}

/// What holds for the names of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    pub zone: Name,
    pub hosts: Option<Hosts>,
    forwards: Vec<Forward>,
    pub caching: Caching,
}

/// Names and their addresses, by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    entries: Vec<(IpAddr, Name)>,
    pub ttl: u32,
    /// Others may know the names that are not here.
    pub falls_through: bool,
}

/// Who is asked for names below `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    from: Name,
    except: Vec<Name>,
    pub to: Vec<Target>,
    /// Each question begins with another.
    pub rotate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Server(SocketAddr),
    /// A file like `/etc/resolv.conf`.
    File(PathBuf),
}

/// How long responses are kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caching {
    pub success: Duration,
    /// That there is no such name, or nothing of the type.
    pub denial: Duration,
}

impl Default for Caching {
    fn default() -> Caching {
        Caching { success: SUCCESS_TTL, denial: DENIAL_TTL }
    }
}

impl Settings {
    /// What `maps` say, by name. What cannot be read is told to `problem` and left out.
    pub fn of<'a>(get: impl Fn(&str) -> Option<&'a ConfigMap>, mut problem: impl FnMut(String)) -> Settings {
        let mut blocks = Vec::new();
        if let Some(text) = get("coredns").and_then(|map| map.data.get("Corefile")) {
            match corefile::parse(text) {
                Ok(read) => blocks.extend(read),
                Err(error) => problem(format!("Corefile of ConfigMap coredns: {error}")),
            }
        }
        let custom = get("coredns-custom").map(|map| &map.data).into_iter().flatten();
        for (key, text) in custom {
            let read = if key.ends_with(".server") {
                corefile::parse(text)
            } else if key.ends_with(".override") {
                let root = |directives| vec![ServerBlock { zones: vec![Name::default()], directives }];
                corefile::parse_directives(text).map(root)
            } else {
                continue;
            };
            match read {
                Ok(read) => blocks.extend(read),
                Err(error) => problem(format!("{key} of ConfigMap coredns-custom: {error}")),
            }
        }
        let mut settings = Settings::default();
        for block in &blocks {
            for zone in &block.zones {
                block.directives.iter().for_each(|directive| {
                    if let Err(wrong) = settings.domain(zone).take(directive) {
                        problem(format!("Corefile, line {}: {wrong}", directive.line));
                    }
                });
            }
        }
        if let Some(map) = get("kube-dns") {
            settings.take_kube_dns(map, &mut problem);
        }
        settings.domains.sort_by_key(|domain| std::cmp::Reverse(domain.zone.labels().len()));
        settings
    }

    /// The domain that knows best about a name.
    pub fn find(&self, name: &Name) -> Option<&Domain> {
        self.domains.iter().find(|domain| name.is_under(&domain.zone))
    }

    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn domain(&mut self, zone: &Name) -> &mut Domain {
        let known = self.domains.iter().position(|domain| domain.zone == *zone);
        let at = known.unwrap_or_else(|| {
            self.domains.push(Domain { zone: zone.clone(), ..Domain::default() });
            self.domains.len() - 1
        });
        &mut self.domains[at]
    }

    fn take_kube_dns(&mut self, map: &ConfigMap, problem: &mut impl FnMut(String)) {
        let stub_domains: BTreeMap<String, Vec<String>> = read(map, "stubDomains", problem);
        let nameservers: Vec<String> = read(map, "upstreamNameservers", problem);
        let stubs = stub_domains.iter().filter_map(|(domain, to)| Some((Name::parse(domain)?, to)));
        for (zone, servers) in stubs.chain([(Name::default(), &nameservers)]) {
            let to: Vec<Target> =
                servers.iter().filter_map(|server| address(server)).map(Target::Server).collect();
            if !to.is_empty() {
                let forward = Forward { from: zone.clone(), except: vec![], to, rotate: false };
                self.domain(&zone).forwards.push(forward);
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(
    map: &ConfigMap,
    key: &str,
    problem: &mut impl FnMut(String),
) -> T {
    let Some(text) = map.data.get(key) else { return T::default() };
    serde_json::from_str(text).unwrap_or_else(|error| {
        problem(format!("{key} of ConfigMap kube-dns: {error}"));
        T::default()
    })
}

/// With or without a port.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix("dns://").unwrap_or(text);
    let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    plain.or_else(|_| text.parse()).ok()
}

impl Domain {
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// Who is to be asked for a name.
    pub fn forward(&self, name: &Name) -> Option<&Forward> {
        let takes = |forward: &&Forward| {
            name.is_under(&forward.from) && !forward.except.iter().any(|except| name.is_under(except))
        };
        self.forwards.iter().find(takes)
    }

    fn take(&mut self, directive: &Directive) -> Result<(), String> {
        let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["forward", from, to @ ..] => self.forwards.push(Forward::of(from, to, &directive.block)?),
            ["cache", rest @ ..] => self.caching = Caching::of(rest, &directive.block)?,
            ["hosts", ..] => {
                let hosts = self.hosts.get_or_insert(Hosts { ttl: HOSTS_TTL, ..Hosts::default() });
                directive.block.iter().try_for_each(|line| hosts.take(line))?;
            }
            [name, ..] if MEANINGLESS.contains(name) => {}
            _ => return Err(format!("{:?} is not supported", words.join(" "))),
        }
        Ok(())
    }
}

impl Forward {
    fn of(from: &str, to: &[&str], options: &[Directive]) -> Result<Forward, String> {
        let from = Name::parse(from).ok_or_else(|| format!("{from:?} is not a name"))?;
        let target = |text: &&str| match text.strip_prefix('/') {
            Some(_) => Ok(Target::File(PathBuf::from(text))),
            None => address(text)
                .map(Target::Server)
                .ok_or_else(|| format!("{text:?} is no address to forward to")),
        };
        let to: Vec<Target> = to.iter().map(target).collect::<Result<_, _>>()?;
        if to.is_empty() {
            return Err("forward names nobody to ask".into());
        }
        // CoreDNS' policy where none is named is `random`.
        let mut forward = Forward { from, except: vec![], to, rotate: true };
        for option in options {
            match option.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["except", names @ ..] => {
                    forward.except.extend(names.iter().filter_map(|name| Name::parse(name)))
                }
                ["policy", policy] => forward.rotate = *policy != "sequential",
                // How connections are kept, and which transport is tried first, is decided here.
                _ => {}
            }
        }
        Ok(forward)
    }
}

impl Caching {
    fn of(words: &[&str], options: &[Directive]) -> Result<Caching, String> {
        let seconds = |text: &str| {
            let seconds = text.parse().map(Duration::from_secs);
            seconds.map_err(|_| format!("{text:?} is no number of seconds"))
        };
        let mut caching = Caching { success: CACHE_SUCCESS_TTL, denial: CACHE_DENIAL_TTL };
        if let Some(ttl) = words.first().filter(|word| word.starts_with(|digit: char| digit.is_ascii_digit()))
        {
            caching = Caching { success: seconds(ttl)?, denial: seconds(ttl)? };
        }
        for option in options {
            match option.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["success", _, ttl, ..] => caching.success = seconds(ttl)?,
                ["denial", _, ttl, ..] => caching.denial = seconds(ttl)?,
                ["disable", "success", ..] => caching.success = Duration::ZERO,
                ["disable", "denial", ..] => caching.denial = Duration::ZERO,
                _ => {}
            }
        }
        Ok(caching)
    }
}

impl Hosts {
    fn take(&mut self, line: &Directive) -> Result<(), String> {
        match line.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["fallthrough", ..] => self.falls_through = true,
            ["ttl", seconds] => {
                self.ttl = seconds.parse().map_err(|_| format!("{seconds:?} is no number of seconds"))?;
            }
            ["no_reverse" | "reload", ..] => {}
            [ip, names @ ..] => {
                let ip: IpAddr = ip.parse().map_err(|_| format!("{ip:?} is no address"))?;
                self.entries.extend(names.iter().filter_map(|name| Some((ip, Name::parse(name)?))));
            }
            [] => {}
        }
        Ok(())
    }

    /// The addresses of a name.
    pub fn addresses(&self, name: &Name) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().filter(move |(_, known)| known == name).map(|(ip, _)| *ip)
    }

    /// The names of an address.
    pub fn names(&self, address: IpAddr) -> impl Iterator<Item = &Name> {
        self.entries.iter().filter(move |(ip, _)| *ip == address).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, ip};
    use apimachinery::json;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    /// The settings of ConfigMaps by name, and what was wrong with them.
    fn settings(maps: &[(&str, apimachinery::Value)]) -> (Settings, Vec<String>) {
        let maps: BTreeMap<&str, ConfigMap> = maps
            .iter()
            .map(|(name, data)| {
                (*name, apimachinery::from_value(json!({"data": data})).expect("a ConfigMap"))
            })
            .collect();
        let mut problems = Vec::new();
        let settings = Settings::of(|name| maps.get(name), |problem| problems.push(problem));
        (settings, problems)
    }

    fn asked(settings: &Settings, text: &str) -> Vec<SocketAddr> {
        let forward = settings.find(&name(text)).and_then(|domain| domain.forward(&name(text)));
        let servers = forward.into_iter().flat_map(|forward| &forward.to).filter_map(|target| match target {
            Target::Server(address) => Some(*address),
            Target::File(_) => None,
        });
        servers.collect()
    }

    #[test]
    fn the_longest_domain_of_a_corefile_knows_a_name() {
        let corefile = ".:53 {\n errors\n kubernetes cluster.local in-addr.arpa {\n  pods insecure\n }\n forward . 192.0.2.9 {\n  except internal.test\n  policy sequential\n }\n cache 60\n}\nacme.test:53 {\n forward . 192.0.2.1 [fd00::2]:5353\n}\n";
        let (settings, problems) = settings(&[("coredns", json!({"Corefile": corefile}))]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(asked(&settings, "www.acme.test"), [at("192.0.2.1:53"), at("[fd00::2]:5353")]);
        assert_eq!(asked(&settings, "notacme.test"), [at("192.0.2.9:53")]);
        assert!(asked(&settings, "a.internal.test").is_empty(), "left out by name");
        let minute = Duration::from_secs(60);
        let root = settings.find(&name("example.org")).expect("the root");
        assert_eq!(root.caching, Caching { success: minute, denial: minute });
        assert!(!root.forward(&name("example.org")).expect("a forward").rotate);
    }

    #[test]
    fn additions_come_from_a_map_of_their_own() {
        let data = json!({
            "acme.server": "acme.test {\n forward . 192.0.2.1\n}\n",
            "names.override": "hosts {\n 192.0.2.7 seven.test also.test\n fallthrough\n ttl 9\n}\n",
            "README": "{",
        });
        let (settings, problems) = settings(&[("coredns-custom", data)]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(asked(&settings, "www.acme.test"), [at("192.0.2.1:53")]);
        let hosts =
            settings.find(&name("seven.test")).and_then(|domain| domain.hosts.as_ref()).expect("hosts");
        assert_eq!((hosts.falls_through, hosts.ttl), (true, 9));
        assert_eq!(hosts.addresses(&name("Also.test")).collect::<Vec<_>>(), [ip("192.0.2.7")]);
        assert_eq!(hosts.names(ip("192.0.2.7")).count(), 2);
    }

    #[test]
    fn the_older_map_names_stub_domains() {
        let data = json!({
            "stubDomains": "{\"acme.test\": [\"192.0.2.1\"], \"deep.acme.test\": [\"192.0.2.2:5353\", \"[fd00::2]:53\"], \"none.test\": [\"?\"]}",
            "upstreamNameservers": "[\"192.0.2.9\"]"});
        let (settings, problems) = settings(&[("kube-dns", data)]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(asked(&settings, "www.acme.test"), [at("192.0.2.1:53")]);
        assert_eq!(asked(&settings, "a.deep.acme.test"), [at("192.0.2.2:5353"), at("[fd00::2]:53")]);
        assert_eq!(asked(&settings, "none.test"), [at("192.0.2.9:53")]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_out() {
        let corefile = ". {\n autopath @kubernetes\n forward . nowhere\n cache\n}\n";
        let (settings, problems) = settings(&[
            ("coredns", json!({"Corefile": corefile})),
            ("kube-dns", json!({"stubDomains": "["})),
        ]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("line 2") && problems[0].contains("autopath"), "{problems:?}");
        assert_eq!(
            settings.find(&name("example.org")).map(|root| root.caching.success),
            Some(CACHE_SUCCESS_TTL)
        );
    }
}
