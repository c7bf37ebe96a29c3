//! Tells monitors on the node which devices, CPUs and memory containers have (follows `apis/podresources`, `v1`).

mod proto {
    //! Messages and server of the pod resources API.
    tonic::include_proto!("v1");
}

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::view::core::{Container, Pod};
use tokio::net::UnixListener;
use tonic::transport::Server;

use self::proto::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use self::proto::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, CdiDevice, ClaimResource, ContainerDevices,
    ContainerMemory, ContainerResources, DynamicResource, GetPodResourcesRequest, GetPodResourcesResponse,
    ListPodResourcesRequest, ListPodResourcesResponse, NumaNode, PodResources, TopologyInfo,
};
use super::cpuset::CpuSet;
use super::dra::ClaimInfo;
use super::memorymanager::Block;
use super::sockets;
use crate::metrics::PodResourcesCall;
use crate::worker::Shared;

const DIR: &str = "pod-resources";
const SOCKET: &str = "kubelet.sock";

/// Serves for ever.
pub async fn serve(shared: Arc<Shared>) {
    let dir = shared.config.root_dir.join(DIR);
    let lister = || Lister { shared: shared.clone() };
    let service = || Server::builder().add_service(PodResourcesListerServer::new(lister()));
    sockets::serve("pod resources cannot be told", || listen(&dir), service).await;
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(dir)?;
    let socket: PathBuf = dir.join(SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

struct Lister {
    shared: Arc<Shared>,
}

impl Lister {
    fn of_pod(&self, pod: &Pod) -> PodResources {
        let uid = &pod.metadata.uid;
        let sidecars = pod.spec.init_containers.iter().filter(|spec| crate::pod::is_sidecar(spec));
        let of = |spec: &Container| {
            let name = spec.name.as_str();
            ContainerResources {
                name: name.to_owned(),
                devices: told(self.shared.containers.devices.of_container(uid, name)),
                cpu_ids: ids(&self.shared.containers.own_cpus(uid, name)),
                memory: memory(self.shared.containers.memory_of(uid, name)),
                dynamic_resources: self.shared.dra.of_container(pod, spec).into_iter().map(claimed).collect(),
            }
        };
        PodResources {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            containers: sidecars.chain(&pod.spec.containers).map(of).collect(),
        }
    }

    fn counted<T>(&self, call: PodResourcesCall, answer: Result<T, tonic::Status>) -> Answer<T> {
        self.shared.metrics.requests.pod_resources(call, &answer);
        answer.map(tonic::Response::new)
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.shared.active.list().into_iter().map(|active| active.pod).collect()
    }
}

fn ids(cpus: &CpuSet) -> Vec<i64> {
    cpus.iter().map(i64::from).collect()
}

/// A resource, its devices, and the nodes they are on.
type Owned = (String, Vec<String>, Vec<u32>);

fn told(devices: Vec<Owned>) -> Vec<ContainerDevices> {
    devices
        .into_iter()
        .map(|(resource_name, device_ids, nodes)| ContainerDevices {
            resource_name,
            device_ids,
            topology: (!nodes.is_empty()).then(|| topology(nodes)),
        })
        .collect()
}

fn topology(nodes: Vec<u32>) -> TopologyInfo {
    TopologyInfo { nodes: nodes.into_iter().map(|node| NumaNode { id: node.into() }).collect() }
}

fn memory(blocks: Vec<Block>) -> Vec<ContainerMemory> {
    let told = |block: Block| ContainerMemory {
        memory_type: block.resource,
        size: block.size,
        topology: Some(topology(block.numa_affinity)),
    };
    blocks.into_iter().map(told).collect()
}

/// A claim with all its devices.
fn claimed(claim: ClaimInfo) -> DynamicResource {
    let devices = claim.drivers.into_iter().flat_map(|(driver_name, devices)| {
        devices.into_iter().map(move |device| ClaimResource {
            cdi_devices: device.cdi_device_ids.into_iter().map(|name| CdiDevice { name }).collect(),
            driver_name: driver_name.clone(),
            pool_name: device.pool_name,
            device_name: device.device_name,
            share_id: device.share_id,
        })
    });
    DynamicResource {
        claim_name: claim.name,
        claim_namespace: claim.namespace,
        claim_resources: devices.collect(),
    }
}

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(&self, _: tonic::Request<ListPodResourcesRequest>) -> Answer<ListPodResourcesResponse> {
        let pod_resources = self.pods().iter().map(|pod| self.of_pod(pod)).collect();
        self.counted(PodResourcesCall::List, Ok(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: tonic::Request<AllocatableResourcesRequest>,
    ) -> Answer<AllocatableResourcesResponse> {
        let answer = AllocatableResourcesResponse {
            devices: told(self.shared.containers.devices.allocatable()),
            cpu_ids: ids(&self.shared.containers.allocatable_cpus()),
            memory: memory(self.shared.containers.allocatable_memory()),
        };
        self.counted(PodResourcesCall::GetAllocatable, Ok(answer))
    }

    async fn get(&self, request: tonic::Request<GetPodResourcesRequest>) -> Answer<GetPodResourcesResponse> {
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let wanted =
            |pod: &&Arc<Pod>| pod.metadata.name == pod_name && pod.metadata.namespace == pod_namespace;
        let pods = self.pods();
        let pod = pods.iter().find(wanted).ok_or_else(|| {
            tonic::Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found"))
        });
        let answer = pod.map(|pod| GetPodResourcesResponse { pod_resources: Some(self.of_pod(pod)) });
        self.counted(PodResourcesCall::Get, answer)
    }
}
