//! From the objects of the API to the routing table: which Ingresses are ours, which goes first, what each names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use api::view::networking::{Ingress, IngressBackend, IngressClass, ServiceBackendPort};
use apimachinery::meta::NamespacedName;
use rustls::sign::CertifiedKey;

use crate::backend::Backend;
use crate::metrics::Registry;
use crate::table::{PathType, Pattern, Route, Table};

/// Whether HTTP is sent to HTTPS where the host has TLS, as ingress-nginx reads it: so it is, unless this says `false`.
const ANNOTATION_SSL_REDIRECT: &str = "nginx.ingress.kubernetes.io/ssl-redirect";
/// Whether HTTP is sent to HTTPS where the host has no TLS either.
const ANNOTATION_FORCE_SSL_REDIRECT: &str = "nginx.ingress.kubernetes.io/force-ssl-redirect";

/// The Ingresses of the built-in controller's classes, oldest first: of two that want the same, the older has it.
pub fn ours(ingresses: Vec<Arc<Ingress>>, classes: &[Arc<IngressClass>]) -> Vec<Arc<Ingress>> {
    let built_in = classes.iter().filter(|class| class.is_built_in());
    let built_in: BTreeSet<&str> = built_in.map(|class| class.metadata.name.as_str()).collect();
    let mut ours = ingresses;
    ours.retain(|ingress| ingress.class().is_some_and(|class| built_in.contains(class)));
    ours.sort_by_cached_key(|ingress| {
        let meta = &ingress.metadata;
        (meta.creation_timestamp, meta.namespaced_name())
    });
    ours
}

/// What Ingresses name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub services: BTreeSet<NamespacedName>,
    pub secrets: BTreeSet<NamespacedName>,
}

pub fn named(ours: &[Arc<Ingress>]) -> Named {
    let mut named = Named::default();
    for ingress in ours {
        let place = |name: &str| NamespacedName::new(ingress.metadata.namespace.clone(), name);
        let services = ingress.backends().filter_map(|backend| backend.service.as_ref());
        named.services.extend(services.map(|service| place(&service.name)));
        let secrets = ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref());
        named.secrets.extend(secrets.filter(|name| !name.is_empty()).map(place));
    }
    named
}

/// What there is of that which Ingresses name.
pub struct World<'a> {
    pub services: BTreeMap<NamespacedName, (Arc<Service>, Vec<Arc<EndpointSlice>>)>,
    /// Those that hold a usable certificate.
    pub certificates: BTreeMap<NamespacedName, Arc<CertifiedKey>>,
    /// For a client that asks for a host without a certificate.
    pub fallback: Option<Arc<CertifiedKey>>,
    /// They only pass through, to outlive a table.
    pub counters: &'a Registry,
}

/// The table of Ingresses that stand in the order of [`ours`].
pub fn table(ours: &[Arc<Ingress>], world: &World<'_>) -> Table {
    let mut builder = Builder { world, backends: HashMap::new(), table: Table::default() };
    for ingress in ours {
        builder.add_rules(ingress);
        builder.add_certificates(ingress);
    }
    // An Ingress that has no rules is meant for everything; one with rules comes after.
    for with_rules in [false, true] {
        for ingress in ours.iter().filter(|ingress| ingress.spec.rules.is_empty() != with_rules) {
            if let Some(backend) = &ingress.spec.default_backend {
                builder.add_default(ingress, "", backend);
            }
        }
    }
    if let Some(fallback) = &world.fallback {
        builder.table.certificates.add("", fallback);
    }
    builder.table
}

type BackendKey = (NamespacedName, ServiceBackendPort);

struct Builder<'a> {
    world: &'a World<'a>,
    /// One for each port of a Service, however many paths lead to it.
    backends: HashMap<BackendKey, Arc<Backend>>,
    table: Table,
}

impl Builder<'_> {
    fn add_rules(&mut self, ingress: &Ingress) {
        for rule in &ingress.spec.rules {
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let path_type = if path.path_type == "Exact" { PathType::Exact } else { PathType::Prefix };
                let pattern = Pattern { host: &rule.host, path_type, path: &path.path };
                let route = self.route(ingress, &rule.host, &path.backend);
                if !self.table.add(&pattern, route) {
                    let name = ingress.metadata.namespaced_name();
                    tracing::debug!(ingress = %name, ?pattern, "an older Ingress has this path");
                }
            }
            if let Some(backend) = ingress.spec.default_backend.as_ref().filter(|_| !rule.host.is_empty()) {
                self.add_default(ingress, &rule.host, backend);
            }
        }
    }

    fn add_default(&mut self, ingress: &Ingress, host: &str, backend: &IngressBackend) {
        let route = self.route(ingress, host, backend);
        self.table.add_default(host, route);
    }

    fn route(&mut self, ingress: &Ingress, host: &str, backend: &IngressBackend) -> Arc<Route> {
        let (namespace, name) = (&ingress.metadata.namespace, &ingress.metadata.name);
        let service = backend.service.as_ref().map_or("", |service| service.name.as_str());
        Arc::new(Route {
            counters: self.world.counters.of(namespace, name, service),
            redirects_to_https: redirects_to_https(ingress, host),
            backend: self.backend(namespace, backend),
        })
    }

    /// One without endpoints stands for what does not exist.
    fn backend(&mut self, namespace: &str, backend: &IngressBackend) -> Arc<Backend> {
        let Some(named) = &backend.service else { return Arc::default() };
        let key = (NamespacedName::new(namespace, named.name.as_str()), named.port.clone());
        let world = self.world;
        let resolve = |(service, port): &BackendKey| {
            let (service, slices) = world.services.get(service)?;
            Backend::of(service, slices, port)
        };
        let resolved = || Arc::new(resolve(&key).unwrap_or_default());
        self.backends.entry(key.clone()).or_insert_with(resolved).clone()
    }

    fn add_certificates(&mut self, ingress: &Ingress) {
        for tls in &ingress.spec.tls {
            let secret = tls.secret_name.as_deref().unwrap_or_default();
            let secret = NamespacedName::new(ingress.metadata.namespace.as_str(), secret);
            let Some(key) = self.world.certificates.get(&secret) else { continue };
            if tls.hosts.is_empty() {
                ingress.spec.rules.iter().for_each(|rule| self.table.certificates.add(&rule.host, key));
                if ingress.spec.rules.is_empty() {
                    self.table.certificates.add("", key);
                }
            }
            tls.hosts.iter().for_each(|host| self.table.certificates.add(host, key));
        }
    }
}

fn redirects_to_https(ingress: &Ingress, host: &str) -> bool {
    let says = |annotation: &str, value: &str| {
        ingress.metadata.annotations.get(annotation).is_some_and(|said| said == value)
    };
    let mut tls = ingress.spec.tls.iter();
    let has_tls =
        tls.any(|tls| tls.hosts.is_empty() || tls.hosts.iter().any(|covered| covers(covered, host)));
    says(ANNOTATION_FORCE_SSL_REDIRECT, "true") || (has_tls && !says(ANNOTATION_SSL_REDIRECT, "false"))
}

/// Whether a host of `tls` is the one of a rule, or a wildcard for it.
fn covers(tls_host: &str, host: &str) -> bool {
    let wildcard = tls_host.strip_prefix('*').zip(crate::table::one_label_less(host));
    tls_host.eq_ignore_ascii_case(host)
        || wildcard.is_some_and(|(suffix, of_host)| suffix.eq_ignore_ascii_case(of_host))
}
