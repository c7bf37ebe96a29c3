//! The scheduler between informers fed by hand and an API server that notes what it is asked.

use apimachinery::{Value, json};
use bytes::Bytes;
use client::informer::Feeder;
use client::transport::{Body, ResponseFuture, Transport};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use super::*;
use crate::testing::{labelled_pod, node};

/// Notes each request and answers bindings with a status.
struct Recorder {
    requests: mpsc::UnboundedSender<(String, Value)>,
    /// Answers to bindings, in order; then 201.
    answers: parking_lot::Mutex<Vec<u16>>,
}

impl Transport for Recorder {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let path = format!("{} {}", request.method(), request.uri().path());
            let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
            let status =
                if path.ends_with("/binding") { self.answers.lock().pop().unwrap_or(201) } else { 200 };
            self.requests.send((path, body)).ok();
            let answer = if status < 300 {
                json!({})
            } else {
                json!({"kind": "Status", "code": status, "message": "no"})
            };
            let body: Body =
                Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(status).body(body).unwrap())
        })
    }
}

struct World {
    nodes: Feeder<Node>,
    pods: Feeder<Pod>,
    _namespaces: Feeder<Namespace>,
    requests: mpsc::UnboundedReceiver<(String, Value)>,
    _running: Guard,
}

/// Ends the scheduler with its world.
struct Guard(tokio::task::JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl World {
    fn new(answers: &[u16]) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let recorder = Recorder { requests: sender, answers: parking_lot::Mutex::new(answers.to_vec()) };
        let client = Client::new(Arc::new(recorder), "scheduler");
        let writer = Writer {
            recorder: EventRecorder::new(client.clone(), DEFAULT_SCHEDULER_NAME, ""),
            client,
            name: DEFAULT_SCHEDULER_NAME.into(),
        };
        let ((nodes, node_feeder), (pods, pod_feeder), (namespaces, namespace_feeder)) =
            (Informer::detached(), Informer::detached(), Informer::detached());
        let storage = Storage {
            volumes: Informer::detached().0,
            claims: Informer::detached().0,
            classes: Informer::detached().0,
            csi_nodes: Informer::detached().0,
            csi_drivers: Informer::detached().0,
            capacities: Informer::detached().0,
            attachments: Informer::detached().0,
        };
        let devices = DeviceInputs {
            claims: Informer::detached().0,
            classes: Informer::detached().0,
            slices: Informer::detached().0,
        };
        let owners = Owners {
            services: Informer::detached().0,
            replication_controllers: Informer::detached().0,
            replica_sets: Informer::detached().0,
            stateful_sets: Informer::detached().0,
            budgets: Informer::detached().0,
        };
        let inputs = Inputs { nodes, pods, namespaces, storage, devices, owners };
        let running = tokio::spawn(Scheduler::new(writer, &inputs, Arc::default()).serve(inputs));
        World {
            nodes: node_feeder,
            pods: pod_feeder,
            _namespaces: namespace_feeder,
            requests,
            _running: Guard(running),
        }
    }

    fn add_node(&self, name: &str, cpu: &str, version: &str) {
        let mut node = Node::clone(&node(name, json!({"cpu": cpu})).node);
        node.metadata.resource_version = version.into();
        self.nodes.apply(node);
    }

    fn add_pod(&self, name: &str, scheduler: &str, cpu: &str) {
        let requests = json!({"cpu": cpu});
        let spec = json!({"schedulerName": scheduler, "containers": [{"resources": {"requests": requests}}]});
        self.pods.apply(Pod::clone(&labelled_pod(name, json!({}), spec).pod));
    }

    /// The next request to a path that ends so.
    async fn request(&mut self, suffix: &str) -> Value {
        loop {
            let (path, body) = self.requests.recv().await.unwrap();
            if path.ends_with(suffix) {
                return body;
            }
        }
    }
}

#[tokio::test]
async fn a_pending_pod_is_bound_and_the_event_says_so() {
    let mut world = World::new(&[]);
    world.add_node("n", "2", "1");
    world.add_pod("other", "somebody-else", "1");
    world.add_pod("web", DEFAULT_SCHEDULER_NAME, "1");
    let binding = world.request("/pods/web/binding").await;
    assert_eq!(binding["target"]["name"], "n");
    assert_eq!(binding["metadata"]["uid"], "web");
    let event = world.request("/events").await;
    assert_eq!(event["message"], "Successfully assigned default/web to n");
}

#[tokio::test]
async fn an_unschedulable_pod_says_why_and_goes_when_a_node_comes() {
    let mut world = World::new(&[]);
    world.add_node("n", "1", "1");
    world.add_pod("web", DEFAULT_SCHEDULER_NAME, "2");
    let patch = world.request("/pods/web/status").await;
    let message = "0/1 nodes are available: 1 Insufficient cpu. \
        no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let condition = &patch["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Unschedulable"), &json!(message)));
    world.add_node("n", "4", "2");
    assert_eq!(world.request("/pods/web/binding").await["target"]["name"], "n");
}

#[tokio::test]
async fn pods_assumed_to_be_placed_count_before_the_server_says_so() {
    let mut world = World::new(&[]);
    world.add_node("n", "2", "1");
    world.add_pod("a", DEFAULT_SCHEDULER_NAME, "2");
    world.add_pod("b", DEFAULT_SCHEDULER_NAME, "2");
    world.request("/binding").await;
    let patch = world.request("/status").await;
    assert_eq!(patch["status"]["conditions"][0]["type"], "PodScheduled");
}

#[tokio::test]
async fn a_binding_that_fails_is_told_in_the_status() {
    let mut world = World::new(&[500]);
    world.add_node("n", "2", "1");
    world.add_pod("a", DEFAULT_SCHEDULER_NAME, "2");
    world.request("/binding").await;
    let patch = world.request("/pods/a/status").await;
    assert_eq!(patch["status"]["conditions"][0]["reason"], "SchedulerError");
}

#[tokio::test]
async fn a_more_important_pod_takes_the_place_of_another() {
    let mut world = World::new(&[]);
    world.add_node("n", "2", "1");
    let pod = |name: &str, priority: i32, node: &str| {
        let containers = json!([{"resources": {"requests": {"cpu": "2"}}}]);
        let spec = json!({"schedulerName": DEFAULT_SCHEDULER_NAME, "priority": priority, "nodeName": node,
            "containers": containers});
        Pod::clone(&labelled_pod(name, json!({}), spec).pod)
    };
    let victim = pod("victim", 0, "n");
    world.pods.apply(victim.clone());
    world.pods.apply(pod("web", 10, ""));
    assert_eq!(
        world.request("DELETE /api/v1/namespaces/default/pods/victim").await["preconditions"]["uid"],
        "victim"
    );
    assert_eq!(world.request("/pods/web/status").await["status"]["nominatedNodeName"], "n");
    world.pods.remove(victim);
    assert_eq!(world.request("/pods/web/binding").await["target"]["name"], "n");
}
