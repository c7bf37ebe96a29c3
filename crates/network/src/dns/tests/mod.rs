//! The zone's answers by table, and the server over real sockets.

mod answers;
mod ready;
mod serving;

use std::sync::atomic::{AtomicU64, Ordering};

use api::view::core::{Namespace, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::{Value, json};
use client::Informer;
use client::informer::Feeder;

use super::{Name, Zone};
use crate::testing::ip;

/// A zone together with what feeds its caches.
struct World {
    zone: Zone,
    services: Feeder<Service>,
    slices: Feeder<EndpointSlice>,
    _namespaces: Feeder<Namespace>,
    /// By it informers tell that something has changed.
    revision: AtomicU64,
}

impl World {
    fn new() -> World {
        let (services, service_feed) = Informer::detached();
        let (slices, slice_feed) = Informer::detached();
        let (namespaces, namespace_feed) = Informer::<Namespace>::detached();
        let namespace = json!({"metadata": {"name": "default"}});
        namespace_feed.apply(apimachinery::from_value(namespace).expect("a Namespace"));
        let domain = Name::parse("cluster.local").expect("a name");
        let zone = Zone::new(domain, services, slices, namespaces, vec![ip("10.244.0.1")]);
        World {
            zone,
            services: service_feed,
            slices: slice_feed,
            _namespaces: namespace_feed,
            revision: AtomicU64::new(1),
        }
    }

    fn next_revision(&self) -> String {
        self.revision.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn service(&self, name: &str, spec: Value) {
        let metadata = json!({"namespace": "default", "name": name, "resourceVersion": self.next_revision()});
        let object = json!({"metadata": metadata, "spec": spec});
        self.services.apply(apimachinery::from_value(object).expect("a Service"));
    }

    fn slice(&self, service: &str, ports: Value, endpoints: Value) {
        let object = json!({
            "metadata": {"namespace": "default", "name": format!("{service}-1"),
                "resourceVersion": self.next_revision(),
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        self.slices.apply(apimachinery::from_value(object).expect("an EndpointSlice"));
    }

    /// `web` with a ClusterIP, and headless `redis` with a named, an unnamed and an unready pod.
    fn with_services() -> World {
        let world = World::new();
        let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let ips = json!(["10.96.0.20", "fd00:96::20"]);
        world.service("web", json!({"clusterIP": "10.96.0.20", "clusterIPs": ips, "ports": http}));
        world.service(
            "redis",
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "redis", "port": 6379}]}),
        );
        world.service("outside", json!({"type": "ExternalName", "externalName": "example.org"}));
        world.service(
            "inside",
            json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}),
        );
        world.slice(
            "redis",
            json!([{"name": "redis", "port": 6380, "protocol": "TCP"}]),
            json!([
                {"addresses": ["10.244.0.5"], "hostname": "redis-0"},
                {"addresses": ["10.244.0.6"]},
                {"addresses": ["10.244.0.7"], "conditions": {"ready": false}},
            ]),
        );
        world
    }
}
