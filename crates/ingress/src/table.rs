//! The routing table, and how a request finds its route in it. Follows the rules of the Ingress API: an exact host goes
//! before a wildcard, a wildcard before none; an exact path before a prefix, a longer prefix before a shorter one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::Backend;
use crate::certificate::Certificates;
use crate::metrics::Counters;

/// Everything that requests are decided by. Never changed: a new one takes its place.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<String, HostRoutes>,
    /// By what follows the `*`, dot included.
    wildcard: HashMap<String, HostRoutes>,
    any: HostRoutes,
    pub certificates: Certificates,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct HostRoutes {
    exact: HashMap<String, Arc<Route>>,
    /// By path without slashes at its end, so that `/` is empty.
    prefix: HashMap<String, Arc<Route>>,
    /// What matches no path goes there.
    default: Option<Arc<Route>>,
}

/// Where requests go.
#[derive(Debug)]
pub struct Route {
    pub backend: Arc<Backend>,
    /// What comes unencrypted is sent away to come back encrypted.
    pub redirects_to_https: bool,
    pub counters: Arc<Counters>,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathType {
    Exact,
    /// By elements between slashes. What is left to the implementation is compared this way too.
    Prefix,
}

/// The pattern of a route's host and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    pub host: &'a str,
    pub path_type: PathType,
    pub path: &'a str,
}

impl Table {
    /// Adds a route; of two with one pattern the first stays. Says whether it was added.
    pub fn add(&mut self, pattern: &Pattern<'_>, route: Arc<Route>) -> bool {
        let routes = self.routes_mut(pattern.host);
        let (map, path) = match pattern.path_type {
            PathType::Exact => (&mut routes.exact, pattern.path),
            PathType::Prefix => (&mut routes.prefix, pattern.path.trim_end_matches('/')),
        };
        let is_new = !map.contains_key(path);
        if is_new {
            map.insert(path.to_owned(), route);
        }
        is_new
    }

    /// Sets where requests for a host go that no path of it matches; the first stays. An empty host means all.
    pub fn add_default(&mut self, host: &str, route: Arc<Route>) {
        self.routes_mut(host).default.get_or_insert(route);
    }

    fn routes_mut(&mut self, host: &str) -> &mut HostRoutes {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix('*') {
            _ if host.is_empty() => &mut self.any,
            Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default(),
            None => self.exact.entry(host).or_default(),
        }
    }

    /// The route of a request. `host` is in lower case and without port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let exact = self.exact.get(host);
        let wildcard = one_label_less(host).and_then(|suffix| self.wildcard.get(suffix));
        let hosts = [exact, wildcard, Some(&self.any)];
        let mut matching = hosts.iter().flatten().filter_map(|routes| routes.find(path));
        let default = || hosts.iter().flatten().find_map(|routes| routes.default.as_ref());
        matching.next().or_else(default)
    }

    /// All routes, some of them under several patterns.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let hosts = self.exact.values().chain(self.wildcard.values()).chain([&self.any]);
        hosts.flat_map(|host| host.exact.values().chain(host.prefix.values()).chain(&host.default))
    }
}

impl HostRoutes {
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(path) {
            return Some(route);
        }
        if self.prefix.is_empty() {
            return None;
        }
        let mut prefix = path.trim_end_matches('/');
        loop {
            if let Some(route) = self.prefix.get(prefix) {
                return Some(route);
            }
            if prefix.is_empty() {
                return None;
            }
            prefix = &prefix[..prefix.rfind('/').unwrap_or_default()];
        }
    }
}

/// What a wildcard that covers the host has after its `*`: all from the first dot on.
pub fn one_label_less(host: &str) -> Option<&str> {
    let dot = host.find('.').filter(|dot| *dot > 0)?;
    Some(&host[dot..])
}
