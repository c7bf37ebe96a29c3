//! What the runtime shows of one pod, in the kubelet's own words.

use api::view::core::Pod;
use jiff::Timestamp;
use runtime::cri;

use crate::worker::Runtime;

pub const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";
/// The part of the container's spec that a running container must match.
pub const CONTAINER_HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
pub const CONTAINER_RESTART_COUNT_ANNOTATION: &str = "io.kubernetes.container.restartCount";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub ready: bool,
    pub attempt: u32,
    /// Empty for a pod on the host's network.
    pub ips: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    /// How often a container of this name was started before; also its restart count.
    pub attempt: u32,
    pub state: State,
    pub hash: String,
    pub image: String,
    pub image_id: String,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub log_path: String,
    /// Who its first process began as.
    pub user: Option<User>,
}

/// User, group and all groups of a process, as its container sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

/// Everything the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The newest first.
    pub sandboxes: Vec<Sandbox>,
    /// The newest first, old attempts included.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest container of this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The one before the newest of this name.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }
}

/// Asks the runtime for all of one pod.
pub async fn observe(runtime: &Runtime, pod: &Pod) -> Result<Observed, tonic::Status> {
    let selector = [(POD_UID_LABEL.to_owned(), pod.metadata.uid.clone())];
    let mut client = runtime.runtime.clone();
    let filter = cri::PodSandboxFilter { label_selector: selector.clone().into(), ..Default::default() };
    let mut listed = client
        .list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) })
        .await?
        .into_inner()
        .items;
    listed.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    let mut observed = Observed::default();
    for sandbox in listed {
        observed.sandboxes.extend(sandbox_status(runtime, sandbox).await?);
    }
    let filter = cri::ContainerFilter { label_selector: selector.into(), ..Default::default() };
    let mut listed = client
        .list_containers(cri::ListContainersRequest { filter: Some(filter) })
        .await?
        .into_inner()
        .containers;
    listed.sort_by_key(|c| std::cmp::Reverse((c.metadata.as_ref().map_or(0, |m| m.attempt), c.created_at)));
    for container in listed {
        if let Some(status) = container_status(runtime, container).await? {
            observed.containers.push(status);
        }
    }
    Ok(observed)
}

/// `None` when the sandbox went away between the list and the question.
async fn sandbox_status(
    runtime: &Runtime,
    sandbox: cri::PodSandbox,
) -> Result<Option<Sandbox>, tonic::Status> {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
    let answer = match runtime.runtime.clone().pod_sandbox_status(request).await {
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        other => other?.into_inner(),
    };
    let status = answer.status.unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let mut ips = Vec::new();
    if !network.ip.is_empty() {
        ips.push(network.ip);
        ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
    }
    Ok(Some(Sandbox {
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        attempt: sandbox.metadata.unwrap_or_default().attempt,
        id: sandbox.id,
        ips,
    }))
}

/// `None` when the container went away between the list and the question.
async fn container_status(
    runtime: &Runtime,
    listed: cri::Container,
) -> Result<Option<Container>, tonic::Status> {
    let request = cri::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
    let answer = match runtime.runtime.clone().container_status(request).await {
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        other => other?.into_inner(),
    };
    let status = answer.status.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let exited = status.state == cri::ContainerState::ContainerExited as i32;
    let attempt = status.metadata.as_ref().map_or(0, |m| m.attempt);
    let message = if exited { crate::termination_message::of(&status) } else { status.message.clone() };
    Ok(Some(Container {
        name: status.labels.get(CONTAINER_NAME_LABEL).cloned().unwrap_or_default(),
        attempt: annotation(CONTAINER_RESTART_COUNT_ANNOTATION).parse().unwrap_or(attempt),
        hash: annotation(CONTAINER_HASH_ANNOTATION),
        id: listed.id,
        sandbox_id: listed.pod_sandbox_id,
        state: state(status.state),
        image: status.image.unwrap_or_default().image,
        // What `status.imageID` shows is the reference: it names the image's digest at its registry.
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        created_at: timestamp(status.created_at),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        log_path: status.log_path,
        user: status.user.and_then(|user| user.linux).map(|user| User {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
    }))
}

fn state(value: i32) -> State {
    match cri::ContainerState::try_from(value) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running,
        Ok(cri::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    }
}

/// CRI times are nanoseconds since 1970; zero means not yet.
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 { None } else { Timestamp::from_nanosecond(nanoseconds.into()).ok() }
}
