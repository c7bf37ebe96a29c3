//! This node in the API: what it has, whether it is well, and its heartbeat (follows the kubelet's `nodestatus`).

mod capacity;
mod features;
pub mod lease;
mod prepare;
mod resources;

use std::fs;
use std::time::Duration;

use api::resource::NODES;
use api::storage::localpath;
use api::view::core::{Node, NodeSystemInfo, ObjectReference};
use apimachinery::{Value, json, time};
use client::event::EventType;
use client::{Client, EventRecorder, PatchType};
use jiff::Timestamp;
use runtime::cri;
use tokio::sync::watch;

use crate::cm::count_cores_and_sockets;
use crate::cm::devicemanager::Counts;
use crate::config::Config;
use crate::eviction::{Condition, Pressure};
use crate::hugepages::HugePages;
use crate::worker::Runtime;

pub use capacity::{Capacity, amounts, capacity, meminfo_kib};
pub use prepare::{ENFORCED, PodLimits, Unfit, prepare};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Read(&'static str, std::io::Error),
    #[error("{0} has no line {1}")]
    Line(&'static str, &'static str),
}

/// Everything a node reports that does not change while it runs.
#[derive(Clone)]
pub struct Facts {
    capacity: Capacity,
    info: NodeSystemInfo,
    /// Where the kubelet's own API listens.
    port: u16,
}

impl Facts {
    pub async fn read(
        config: &Config,
        runtime: &Runtime,
        capacity: Capacity,
        port: u16,
    ) -> Result<Self, tonic::Status> {
        let request = cri::VersionRequest { version: "v1".to_owned() };
        let version = runtime.runtime.clone().version(request).await?.into_inner();
        let line =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let info = NodeSystemInfo {
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel_version: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            container_runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            kubelet_version: config.version.clone(),
            // Nobody can tell which proxy runs beside a kubelet; upstream leaves it empty too.
            kube_proxy_version: String::new(),
            operating_system: "linux".to_owned(),
            architecture: architecture().to_owned(),
        };
        Ok(Facts { capacity, info, port })
    }

    /// What figures of the machine are labelled with.
    pub fn machine(&self) -> crate::server::Machine {
        let info = &self.info;
        let (cores, sockets) = count_cores_and_sockets();
        crate::server::Machine {
            cores,
            sockets,
            machine_id: info.machine_id.clone(),
            system_uuid: info.system_uuid.clone(),
            boot_id: info.boot_id.clone(),
            kernel_version: info.kernel_version.clone(),
            os_image: info.os_image.clone(),
        }
    }

    /// The part of `NAME://VERSION` before the colon.
    pub fn runtime_name(&self) -> &str {
        self.info.container_runtime_version.split(':').next().unwrap_or_default()
    }
}

/// As Go spells it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

pub fn reference(name: &str) -> ObjectReference {
    ObjectReference { kind: "Node".into(), name: name.into(), uid: name.into(), ..Default::default() }
}

/// Creates the node, or brings its labels up to date; tries until the API server takes it. One that is not to register
/// itself is somebody else's to create.
pub async fn register(client: &Client, config: &Config, facts: &Facts) {
    const RETRY: Duration = Duration::from_millis(500);
    if !config.kubelet.register_node {
        return;
    }
    loop {
        match try_register(client, config, facts).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "node could not be registered, will retry"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_register(client: &Client, config: &Config, facts: &Facts) -> Result<(), client::Error> {
    let (labels, annotations) = (labels(config), annotations(config));
    let node = json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": config.node_name, "labels": labels, "annotations": annotations},
        "spec": spec(config),
        "status": status(config, facts, &Node::default(), &[], &Health { runtime_ready: true, ..Health::default() }, Timestamp::now()),
    });
    match client.create(NODES, "", &node).await {
        Err(error) if error.is_already_exists() => {
            let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
            client.patch(NODES, "", &config.node_name, None, PatchType::Strategic, &patch).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Taints and provider are given to a node when it is made; later they are others' to change.
fn spec(config: &Config) -> Value {
    let mut spec = json!({});
    if !config.kubelet.provider_id.is_empty() {
        spec["providerID"] = config.kubelet.provider_id.as_str().into();
    }
    if !config.kubelet.register_with_taints.is_empty() {
        spec["taints"] = json!(config.kubelet.register_with_taints);
    }
    spec
}

/// A place for local volumes that is offered no longer is taken back.
fn annotations(config: &Config) -> Value {
    json!({
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        (localpath::ROOT): config.local_path_root,
    })
}

/// What is known of the node before the API server has told.
pub fn own(config: &Config) -> Node {
    let node = json!({"metadata": {"name": config.node_name, "labels": labels(config)}});
    apimachinery::from_value(node).expect("a node's own labels are text")
}

fn labels(config: &Config) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(), "beta.kubernetes.io/arch": architecture(),
    });
    for (key, value) in &config.node_labels {
        labels[key] = value.as_str().into();
    }
    labels
}

/// How the node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub runtime_ready: bool,
    pub shutting_down: bool,
    pub pressure: Pressure,
}

impl Health {
    /// Type, status, reason and message of each condition, in upstream's words.
    fn conditions(&self) -> [(&'static str, &'static str, &'static str, &'static str); 4] {
        let short = |of: Condition| self.pressure.contains(&of);
        let memory = if short(Condition::Memory) {
            ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
        } else {
            ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
        };
        let disk = if short(Condition::Disk) {
            ("True", "KubeletHasDiskPressure", "kubelet has disk pressure")
        } else {
            ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
        };
        let pid = if short(Condition::Pid) {
            ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
        } else {
            ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available")
        };
        let ready = match (self.runtime_ready, self.shutting_down) {
            (true, false) => ("True", "KubeletReady", "kubelet is posting ready status"),
            (true, true) => ("False", "KubeletNotReady", "node is shutting down"),
            (false, false) => ("False", "KubeletNotReady", "container runtime is down"),
            (false, true) => {
                ("False", "KubeletNotReady", "[container runtime is down, node is shutting down]")
            }
        };
        let named = |kind, (status, reason, message)| (kind, status, reason, message);
        [
            named(Condition::Memory.kind(), memory),
            named(Condition::Disk.kind(), disk),
            named(Condition::Pid.kind(), pid),
            named(READY, ready),
        ]
    }
}

/// The events of a node whose conditions changed. At the start all are told but `Ready`, of which is told once the
/// kubelet knows its pods.
fn events(before: Option<&Health>, now: &Health) -> Vec<String> {
    let old = before.map(Health::conditions);
    let is_new = |(kind, status): (&str, &str)| match &old {
        Some(old) => !old.iter().any(|condition| (condition.0, condition.1) == (kind, status)),
        None => kind != READY,
    };
    let changed = now.conditions().into_iter().filter(|condition| is_new((condition.0, condition.1)));
    changed
        .map(|(_, _, reason, _)| match reason {
            "KubeletReady" => "NodeReady".to_owned(),
            "KubeletNotReady" => "NodeNotReady".to_owned(),
            // `KubeletHasDiskPressure` is told of as `NodeHasDiskPressure`.
            reason => reason.replacen("Kubelet", "Node", 1),
        })
        .collect()
}

const READY: &str = "Ready";

/// The whole status. A condition keeps the time of its last change. Pure.
fn status(
    config: &Config,
    facts: &Facts,
    known: &Node,
    images: &[Value],
    health: &Health,
    now: Timestamp,
) -> Value {
    let capacity = &facts.capacity;
    let allocatable = capacity.allocatable();
    let quantities = |milli_cpu: i64, memory: i64, storage: i64| {
        let cpu =
            if milli_cpu % 1000 == 0 { (milli_cpu / 1000).to_string() } else { format!("{milli_cpu}m") };
        json!({"cpu": cpu, "memory": format!("{}Ki", memory / 1024), "ephemeral-storage": format!("{}Ki", storage / 1024),
            "pods": capacity.pods.to_string(), "hugepages-2Mi": "0", "hugepages-1Gi": "0"})
    };
    let conditions: Vec<Value> = health
        .conditions()
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = known.status.conditions.iter().find(|c| c.kind == kind && c.status == status);
            let since = before.and_then(|c| c.last_transition_time).unwrap_or(now);
            json!({"type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": time::format_time(now), "lastTransitionTime": time::format_time(since)})
        })
        .collect();
    let host_ips =
        config.host_ips().into_iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
    let hostname = json!({"type": "Hostname", "address": config.node_name});
    let addresses: Vec<Value> = host_ips.chain([hostname]).collect();
    let mut info = json!(facts.info);
    if capacity.swap_bytes > 0 {
        info["swap"] = json!({"capacity": capacity.swap_bytes});
    }
    json!({
        "capacity": quantities(capacity.cpus * 1000, capacity.memory_bytes, capacity.storage_bytes),
        "allocatable": quantities(allocatable.milli_cpu, allocatable.memory_bytes, allocatable.ephemeral_storage_bytes),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "nodeInfo": info, "conditions": conditions, "images": images,
    })
}

/// Writes the node's status at start, when it changes, and every `nodeStatusReportFrequency`; the lease says that the
/// node lives in between.
pub struct StatusLoop {
    client: Client,
    config: Config,
    facts: Facts,
    runtime: Runtime,
    signs: Signs,
    huge_pages: Vec<HugePages>,
    recorder: EventRecorder,
    /// What was told of last.
    told: Option<Health>,
    /// Of a reboot events tell once.
    told_reboot: bool,
}

/// What is reported at once when it changes.
pub struct Signs {
    /// Whether the runtime answers.
    pub health: watch::Receiver<bool>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    pub shutting_down: watch::Receiver<bool>,
    pub devices: watch::Receiver<Counts>,
}

impl Signs {
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.health.changed() => changed,
            changed = self.pressure.changed() => changed,
            changed = self.shutting_down.changed() => changed,
            changed = self.devices.changed() => changed,
        }
    }
}

impl StatusLoop {
    pub fn new(
        client: Client,
        config: Config,
        facts: Facts,
        runtime: Runtime,
        signs: Signs,
        recorder: EventRecorder,
    ) -> Self {
        let huge_pages = HugePages::read();
        StatusLoop {
            client,
            config,
            facts,
            runtime,
            signs,
            huge_pages,
            recorder,
            told: None,
            told_reboot: false,
        }
    }

    pub async fn run(mut self) {
        const RETRY: Duration = Duration::from_secs(1);
        let report_period = self.config.kubelet.node_status_report_frequency.to_std();
        loop {
            match self.report().await {
                // Without anybody to tell of a change the period alone counts.
                Ok(()) => {
                    let changed = self.signs.changed();
                    if let Ok(Err(_)) = tokio::time::timeout(report_period, changed).await {
                        tokio::time::sleep(report_period).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "node status could not be written, will retry");
                    if error.is_not_found() {
                        register(&self.client, &self.config, &self.facts).await;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn report(&mut self) -> Result<(), client::Error> {
        let name = &self.config.node_name;
        let known: Node = self.client.get(NODES, "", name).await?;
        let runtime = runtime_status(&self.runtime).await;
        let health = Health {
            runtime_ready: is_ready(&runtime),
            shutting_down: *self.signs.shutting_down.borrow(),
            pressure: self.signs.pressure.borrow().clone(),
        };
        let node = reference(name);
        for event in events(self.told.as_ref(), &health) {
            let message = format!("Node {name} status is now: {event}");
            self.recorder.event(&node, EventType::Normal, &event, message);
        }
        self.told = Some(health.clone());
        if let Some(message) = rebooted(&known, &self.facts.info.boot_id).filter(|_| !self.told_reboot) {
            self.recorder.event(&node, EventType::Warning, "Rebooted", message);
            self.told_reboot = true;
        }
        let images = self.images().await;
        let mut status = status(&self.config, &self.facts, &known, &images, &health, Timestamp::now());
        resources::add(&mut status, &self.signs.devices.borrow(), &self.huge_pages);
        features::add(&mut status, &runtime);
        let patch = patch_of(status);
        self.client.patch(NODES, "", name, Some("status"), PatchType::Strategic, &patch).await.map(drop)
    }

    /// The largest images, as upstream.
    async fn images(&self) -> Vec<Value> {
        let listed = self.runtime.images.clone().list_images(cri::ListImagesRequest::default()).await;
        let mut images = listed.map(|answer| answer.into_inner().images).unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        // -1 is no limit.
        images.truncate(usize::try_from(self.config.kubelet.node_status_max_images).unwrap_or(usize::MAX));
        let names = |image: &cri::Image| [image.repo_digests.clone(), image.repo_tags.clone()].concat();
        images.iter().map(|image| json!({"names": names(image), "sizeBytes": image.size})).collect()
    }
}

/// What to tell of a node that ran another boot of the machine when it was last heard of.
fn rebooted(known: &Node, boot_id: &str) -> Option<String> {
    let before = &known.status.node_info.boot_id;
    let name = &known.metadata.name;
    (!before.is_empty() && before != boot_id)
        .then(|| format!("Node {name} has been rebooted, boot id: {boot_id}"))
}

pub async fn runtime_ready(runtime: &Runtime) -> bool {
    is_ready(&runtime_status(runtime).await)
}

/// What the runtime says of itself; nothing when it does not answer.
async fn runtime_status(runtime: &Runtime) -> cri::StatusResponse {
    let answer = runtime.runtime.clone().status(cri::StatusRequest::default()).await;
    answer.map(|answer| answer.into_inner()).unwrap_or_default()
}

fn is_ready(runtime: &cri::StatusResponse) -> bool {
    let mut conditions = runtime.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.r#type == "RuntimeReady" && condition.status)
}

/// A strategic patch to a status. Addresses of both families are of one type, by which such a patch would merge them: the
/// list is replaced (upstream: `fixupPatchForNodeStatusAddresses`).
fn patch_of(mut status: Value) -> Value {
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    json!({"status": status})
}

#[cfg(test)]
mod tests {
    use apimachinery::patch::strategic_merge_patch;

    use super::*;

    #[test]
    fn conditions_are_told_of_when_they_change() {
        let well = Health { runtime_ready: true, ..Health::default() };
        let at_start = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        assert_eq!(events(None, &well), at_start);
        assert_eq!(events(Some(&well), &well), [""; 0]);
        let full = Health { pressure: [Condition::Disk].into(), ..well.clone() };
        assert_eq!(events(Some(&well), &full), ["NodeHasDiskPressure"]);
        let down = Health { runtime_ready: false, ..full.clone() };
        assert_eq!(events(Some(&full), &down), ["NodeNotReady"]);
        assert_eq!(events(Some(&down), &well), ["NodeHasNoDiskPressure", "NodeReady"]);
    }

    #[test]
    fn a_node_that_comes_back_with_another_boot_id_was_rebooted() {
        let check = |before: &str, expect: Option<&str>| {
            let node = json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {"bootID": before}}});
            let node: Node = apimachinery::from_value(node).expect("a node");
            assert_eq!(rebooted(&node, "b2").as_deref(), expect);
        };
        check("b1", Some("Node n has been rebooted, boot id: b2"));
        check("b2", None);
        check("", None);
    }

    #[test]
    fn addresses_of_both_families_are_written_as_they_are_again_and_again() {
        let internal = |address: &str| json!({"type": "InternalIP", "address": address});
        let status = json!({"addresses": [internal("192.0.2.1"), internal("2001:db8::1")],
            "conditions": [{"type": "Ready", "status": "True"}]});
        let root = api::schema::type_id("io.k8s.api.core.v1.Node");
        let mut node = json!({"metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Other", "status": "True"}]}});
        for _ in 0..2 {
            node =
                strategic_merge_patch(api::schema(), root, node, patch_of(status.clone())).expect("applies");
            assert_eq!(node["status"]["addresses"], status["addresses"]);
        }
        assert_eq!(node["status"]["conditions"].as_array().map(Vec::len), Some(2));
    }
}
