//! What is stored and handed out, read when somebody asks: objects, Services' addresses and ports, and
//! APIServices that cannot be called.

use std::fmt::Result;

use crate::aggregation::is_available;
use crate::conversion;
use crate::core::Core;
use crate::prometheus::{Label, Metric};

const OBJECTS: Metric<1> = Metric {
    name: "apiserver_storage_objects",
    help: "[STABLE] (Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    labels: ["resource"],
};
const RESOURCE_OBJECTS: Metric<2> = Metric {
    name: "apiserver_resource_objects",
    help: "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    labels: ["group", "resource"],
};
/// Over etcd it is etcd that tells.
const SIZE: Metric<1> = Metric {
    name: "apiserver_storage_size_bytes",
    help: "[STABLE] Size of the storage database file physically allocated in bytes.",
    labels: ["storage_cluster_id"],
};
/// What the store of one's own is called where upstream numbers clusters of etcd.
const OWN_LOG: &str = "log";
const ALLOCATED_ADDRESSES: Metric<1> = Metric {
    name: "kube_apiserver_clusterip_allocator_allocated_ips",
    help: "[ALPHA] Gauge measuring the number of allocated IPs for Services",
    labels: ["cidr"],
};
const AVAILABLE_ADDRESSES: Metric<1> = Metric {
    name: "kube_apiserver_clusterip_allocator_available_ips",
    help: "[ALPHA] Gauge measuring the number of available IPs for Services",
    labels: ["cidr"],
};
const ALLOCATED_PORTS: Metric<0> = Metric {
    name: "kube_apiserver_nodeport_allocator_allocated_ports",
    help: "[ALPHA] Gauge measuring the number of allocated NodePorts for Services",
    labels: [],
};
const AVAILABLE_PORTS: Metric<0> = Metric {
    name: "kube_apiserver_nodeport_allocator_available_ports",
    help: "[ALPHA] Gauge measuring the number of available NodePorts for Services",
    labels: [],
};
const UNAVAILABLE: Metric<1> = Metric {
    name: "aggregator_unavailable_apiservice",
    help: "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.",
    labels: ["name"],
};

pub fn write(out: &mut String, core: &Core) -> Result {
    let statistics = core.store.statistics();
    let objects = &statistics.objects;
    let rows = objects.iter().map(|(stored, count)| ([stored.to_string().into()], *count as f64));
    OBJECTS.write(out, "gauge", rows)?;
    let rows = objects.iter().map(|(stored, count)| {
        let (resource, group) = stored.split_once('.').unwrap_or((stored, ""));
        ([group.to_owned().into(), resource.to_owned().into()], *count as f64)
    });
    RESOURCE_OBJECTS.write(out, "gauge", rows)?;
    let size = Some(statistics.disk_bytes as f64).filter(|bytes| *bytes > 0.0);
    SIZE.write(out, "gauge", size.map(|bytes| ([OWN_LOG.into()], bytes)))?;
    write_services(out, core)?;
    write_api_services(out, core)
}

fn write_services(out: &mut String, core: &Core) -> Result {
    let used = core.services.used();
    let rows = |value: fn(&(String, f64, f64)) -> f64| {
        used.addresses.iter().map(move |row| ([Label::from(row.0.clone())], value(row)))
    };
    ALLOCATED_ADDRESSES.write(out, "gauge", rows(|(_, held, _)| *held))?;
    AVAILABLE_ADDRESSES.write(out, "gauge", rows(|(_, _, free)| *free))?;
    ALLOCATED_PORTS.write(out, "gauge", [([], used.ports as f64)])?;
    AVAILABLE_PORTS.write(out, "gauge", [([], used.ports_free as f64)])
}

fn write_api_services(out: &mut String, core: &Core) -> Result {
    let page = core.store.range("apiservices.apiregistration.k8s.io", None, None, None, 0, &|_| true);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    let rows = entries.iter().map(|entry| {
        let object = conversion::decode(&entry.bytes);
        ([entry.key.name.to_string().into()], f64::from(u8::from(!is_available(&object))))
    });
    UNAVAILABLE.write(out, "gauge", rows)
}
