//! Who knows the names that are not the cluster's: what the cluster's settings say, and otherwise the machine's
//! resolvers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use api::resource::CONFIG_MAPS;
use api::view::core::ConfigMap;
use client::{Informer, Informers};
use parking_lot::RwLock;

use super::Name;
use super::forward::{ResolvConf, Resolvers};
use super::settings::{Caching, Domain, Forward, Hosts, NAMES, Settings, Target};
use super::wire::{Code, Data, Record, Response};

const NAMESPACE: &str = "kube-system";

/// Where questions go that others must answer.
#[derive(Debug)]
pub struct Upstreams {
    machine: ResolvConf,
    /// Never asked: the server's own addresses, which would make a loop.
    own: Vec<IpAddr>,
    current: RwLock<Current>,
}

/// What the settings say, and the files they name.
#[derive(Debug, Default)]
struct Current {
    settings: Settings,
    files: HashMap<PathBuf, ResolvConf>,
}

/// The ConfigMaps that settings are read from, in the order of [`NAMES`].
pub(super) fn config_maps(informers: &Informers) -> [Informer<ConfigMap>; NAMES.len()] {
    NAMES.map(|name| informers.get_selected(CONFIG_MAPS, &format!("metadata.name={name}")))
}

impl Upstreams {
    /// `own` are the addresses of the server itself.
    pub fn new(resolv_conf: PathBuf, own: Vec<IpAddr>) -> Upstreams {
        let machine = ResolvConf::new(resolv_conf, own.clone());
        Upstreams { machine, own, current: RwLock::default() }
    }

    /// Whom to ask about a name, and how long what they say may be kept.
    pub(super) fn of(&self, name: &Name) -> (Resolvers, Caching) {
        let current = self.current.read();
        let domain = current.settings.find(name);
        let forward = domain.and_then(|domain| domain.forward(name));
        let resolvers = match forward {
            Some(forward) => self.resolvers(forward, &current.files),
            None => self.machine.resolvers(),
        };
        (resolvers, domain.map(|domain| domain.caching).unwrap_or_default())
    }

    fn resolvers(&self, forward: &Forward, files: &HashMap<PathBuf, ResolvConf>) -> Resolvers {
        let of_target = |target: &Target| match target {
            Target::Server(address) => vec![*address],
            Target::File(path) => files.get(path).map(|file| file.resolvers().addresses).unwrap_or_default(),
        };
        let all = forward.to.iter().flat_map(of_target);
        let addresses: Vec<SocketAddr> = all.filter(|address| !self.own.contains(&address.ip())).collect();
        Resolvers::new(addresses).rotating(forward.rotate)
    }

    /// The answer that stands in the settings themselves.
    pub(super) fn by_hand(&self, name: &Name, kind: u16) -> Option<Response> {
        let current = self.current.read();
        current.settings.find(name)?.hosts.as_ref()?.answer(name, kind)
    }

    /// Takes up what the ConfigMaps say, now and whenever it changes.
    pub(super) async fn follow(self: Arc<Self>, maps: [Informer<ConfigMap>; NAMES.len()]) {
        let [mut first, mut second, mut third] = maps.each_ref().map(Informer::subscribe);
        loop {
            tokio::select! {
                Some(_) = first.recv() => {}
                Some(_) = second.recv() => {}
                Some(_) = third.recv() => {}
                else => return,
            }
            let found: Vec<Arc<ConfigMap>> =
                maps.iter().zip(NAMES).filter_map(|(map, name)| map.get(NAMESPACE, name)).collect();
            let get = |name: &str| found.iter().find(|map| map.metadata.name == name).map(|map| &**map);
            self.use_settings(Settings::of(get, |problem| {
                tracing::warn!(problem, "DNS settings of the cluster")
            }));
        }
    }

    fn use_settings(&self, settings: Settings) {
        let files =
            settings.files().map(|path| (path.clone(), ResolvConf::new(path.clone(), self.own.clone())));
        let files = files.collect();
        *self.current.write() = Current { settings, files };
    }
}

impl Settings {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.domains().iter().flat_map(Domain::forwards).flat_map(|forward| &forward.to).filter_map(
            |target| match target {
                Target::File(path) => Some(path),
                Target::Server(_) => None,
            },
        )
    }
}

impl Hosts {
    /// `None` where others are to be asked. That a name is not here cannot be proven without a zone, so it is a
    /// failure, as with CoreDNS.
    fn answer(&self, name: &Name, kind: u16) -> Option<Response> {
        let record = |data: Data| Record { name: name.clone(), ttl: self.ttl, data };
        let known: Vec<Data> = match name.reverse_address() {
            Some(address) => self.names(address).cloned().map(Data::Ptr).collect(),
            None => self.addresses(name).map(Data::from).collect(),
        };
        if known.is_empty() {
            return (!self.falls_through).then(|| Response::of(Code::ServerFailure));
        }
        let answers = known.into_iter().filter(|data| data.kind() == kind).map(record).collect();
        Some(Response { authoritative: true, answers, ..Response::of(Code::NoError) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::kind;
    use crate::testing::{at, ip};
    use apimachinery::json;

    /// What the server at 192.0.2.8 knows by this Corefile.
    fn upstreams(corefile: &str) -> Upstreams {
        let upstreams = Upstreams::new("/nowhere".into(), vec![ip("192.0.2.8")]);
        let map = json!({"data": {"Corefile": corefile}});
        let map: ConfigMap = apimachinery::from_value(map).expect("a ConfigMap");
        let get = |name: &str| (name == "coredns").then_some(&map);
        upstreams.use_settings(Settings::of(get, |problem| panic!("{problem}")));
        upstreams
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn nobody_forwards_to_itself() {
        let upstreams = upstreams("acme.test {\n forward . 192.0.2.8 192.0.2.1\n}\n");
        assert_eq!(upstreams.of(&name("www.acme.test")).0.addresses, [at("192.0.2.1:53")]);
        assert!(upstreams.of(&name("example.org")).0.addresses.is_empty(), "no settings and no file");
    }

    #[test]
    fn names_given_by_hand_are_answered_and_others_fail_or_fall_through() {
        let strict = upstreams("acme.test {\n hosts {\n  192.0.2.7 www.acme.test\n }\n}\n");
        let answer = |name_of: &str, kind| strict.by_hand(&name(name_of), kind);
        let addresses = answer("WWW.acme.test", kind::A).map(|found| found.answers.len());
        assert_eq!(addresses, Some(1));
        let nothing = answer("www.acme.test", kind::AAAA).map(|found| (found.code, found.answers.len()));
        assert_eq!(nothing, Some((Code::NoError, 0)));
        assert_eq!(answer("mail.acme.test", kind::A), Some(Response::of(Code::ServerFailure)));
        assert_eq!(answer("example.org", kind::A), None);
        let lenient = upstreams(". {\n hosts {\n  192.0.2.7 www.acme.test\n  fallthrough\n }\n}\n");
        assert_eq!(lenient.by_hand(&name("mail.acme.test"), kind::A), None);
        let reverse = lenient.by_hand(&name("7.2.0.192.in-addr.arpa"), kind::PTR).expect("a name");
        assert_eq!(reverse.answers[0].data, Data::Ptr(name("www.acme.test")));
    }
}
