//! The whole loop against a small API server in memory whose watches lag.

use std::sync::Arc;
use std::time::Duration;

use api::resource::{
    CLUSTER_ROLES, CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, LEASES, NAMESPACES, NODES,
    PODS, REPLICA_SETS, Resource, SERVICE_ACCOUNTS, SERVICES,
};
use api::view::apps::{Deployment, ReplicaSet};
use api::view::core::Pod;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use bytes::Bytes;
use client::transport::{BoxError, ResponseFuture, Transport};
use client::{Body, CancellationToken, Client, Informers, WorkQueue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{run, run_one};
use crate::catalogue::{CATALOGUE, Config};
use crate::controller::{Controller, Key, Watches};
use crate::plan::{Action, Plan, Step};
use crate::testing::Cluster;

const SERVED: [Resource; 13] = [
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
];
/// How late every watch is.
const LAG: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cluster: Cluster,
    watches: Vec<(&'static str, mpsc::UnboundedSender<Bytes>)>,
    pods_refused: usize,
    pods_made: usize,
}

struct Target {
    resource: Resource,
    namespace: String,
    name: String,
    subresource: Option<&'static str>,
}

fn target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').skip(if path.starts_with("/apis/") { 4 } else { 3 }).peekable();
    let mut namespace = "";
    let mut first = parts.next()?;
    if first == "namespaces" && path.split('/').count() > 5 {
        namespace = parts.next()?;
        first = parts.next()?;
    }
    let resource = SERVED.into_iter().find(|resource| resource.plural == first)?;
    let name = parts.next().unwrap_or_default().to_owned();
    let subresource = parts.next().map(|_| "status");
    Some(Target { resource, namespace: namespace.to_owned(), name, subresource })
}

fn answer(code: u16, value: Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).body(body).expect("a response")
}

impl Transport for Server {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move { Ok(self.state.lock().serve(&request)) })
    }
}

impl State {
    fn serve(&mut self, request: &Request<Bytes>) -> Response<Body> {
        let uri = request.uri();
        let Some(target) = target(uri.path()) else {
            return answer(200, json!({"resources": [], "groups": []}));
        };
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        match *request.method() {
            Method::GET if uri.query().is_some_and(|q| q.contains("watch=true")) => {
                self.watch(target.resource)
            }
            Method::GET if target.name.is_empty() => self.list(target.resource),
            Method::GET => match self.cluster.value(target.resource, &target.namespace, &target.name) {
                Some(object) => answer(200, object.clone()),
                None => answer(404, json!({"kind": "Status", "reason": "NotFound", "code": 404})),
            },
            _ => self.write(request.method(), target, body),
        }
    }

    fn list(&self, resource: Resource) -> Response<Body> {
        let items: Vec<&Value> = self.cluster.values(resource);
        answer(
            200,
            json!({"metadata": {"resourceVersion": self.cluster.revision().to_string()}, "items": items}),
        )
    }

    fn watch(&mut self, resource: Resource) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
        self.watches.push((resource.plural, sender));
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
            let frame = receiver.recv().await?;
            tokio::time::sleep(LAG).await;
            Some((Ok::<_, BoxError>(http_body::Frame::data(frame)), receiver))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn write(&mut self, method: &Method, target: Target, body: Value) -> Response<Body> {
        let Target { resource, namespace, name, subresource } = target;
        if resource == PODS && *method == Method::POST {
            if self.pods_refused > 0 {
                self.pods_refused -= 1;
                let status = json!({"kind": "Status", "reason": "Forbidden", "code": 403, "message": "exceeded quota"});
                return answer(403, status);
            }
            self.pods_made += 1;
        }
        let stored = self.cluster.value(resource, &namespace, &name);
        let held = stored.map_or("", |stored| str_at(stored, &["metadata", "resourceVersion"]));
        let wanted = str_at(&body, &["metadata", "resourceVersion"]);
        if *method != Method::POST && !wanted.is_empty() && wanted != held {
            return answer(409, json!({"kind": "Status", "reason": "Conflict", "code": 409}));
        }
        let kind = client::PatchType::Merge;
        let action = match *method {
            Method::POST => Action::Create { resource, namespace, object: body },
            Method::PUT => Action::Update { resource, namespace, name, subresource, object: body },
            Method::PATCH => Action::Patch { resource, namespace, name, subresource, kind, patch: body },
            _ => panic!("nothing is deleted here"),
        };
        let step = Step { action, done: None, failed: None };
        let written = self.cluster.apply(&Plan { steps: vec![step], ..Plan::default() });
        let kind = if *method == Method::POST { "ADDED" } else { "MODIFIED" };
        let frame = Bytes::from(format!("{}\n", json!({"type": kind, "object": written})));
        self.watches
            .retain(|(plural, sender)| *plural != resource.plural || sender.send(frame.clone()).is_ok());
        answer(200, written)
    }
}

/// Runs all controllers for a Deployment of three until `done`, in virtual time.
async fn run_until(refused: usize, done: impl Fn(&State) -> bool) -> Arc<Server> {
    let server = Arc::new(Server::default());
    {
        let mut state = server.state.lock();
        state.pods_refused = refused;
        state.cluster.create(
            DEPLOYMENTS,
            json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"replicas": 3,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}}),
        );
    }
    let stop = CancellationToken::new();
    let informers = Informers::new(Client::new(server.clone(), "test"), stop.clone());
    let config = Config::default();
    let client_for = |name| Client::new(server.clone(), name);
    let waiting = async {
        let deadline = Duration::from_secs(120);
        let reached = async {
            while !done(&server.state.lock()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(deadline, reached).await.expect("it is reached in time");
        stop.cancel();
    };
    tokio::join!(run(&config, client_for, &informers, stop.clone()), waiting);
    server
}

/// Asks to be called again at once, and wants what is always refused.
struct Stubborn {
    decisions: Arc<Mutex<usize>>,
}

#[async_trait::async_trait]
impl Controller for Stubborn {
    fn watch(&self, watches: &mut Watches) {
        watches.spawn(|queue| async move { queue.add(Key::new("a", "x")) });
    }

    async fn reconcile(&self, _: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        *self.decisions.lock() += 1;
        let mut plan = Plan::default();
        plan.act(Action::create(PODS, "a", json!({"metadata": {"name": "x"}})));
        plan.requeue(now);
        Ok(plan)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_ever_more_rarely_whatever_the_plan_asks() {
    let server = Arc::new(Server::default());
    server.state.lock().pods_refused = usize::MAX;
    let decisions = Arc::new(Mutex::new(0));
    let controller = Arc::new(Stubborn { decisions: decisions.clone() });
    let running = run_one(&CATALOGUE[0], controller, WorkQueue::new(), Client::new(server, "test"));
    tokio::time::timeout(Duration::from_secs(60), running).await.expect_err("it never ends");
    let decisions = *decisions.lock();
    assert!((10..20).contains(&decisions), "{decisions} decisions in a minute");
}

fn replica_set(state: &State) -> Option<Arc<ReplicaSet>> {
    state.cluster.list::<ReplicaSet>().into_iter().next()
}

#[tokio::test(start_paused = true)]
async fn a_lagging_cache_makes_no_pod_twice() {
    let done = |state: &State| replica_set(state).is_some_and(|rs| rs.status.replicas == 3);
    let server = run_until(0, done).await;
    let state = server.state.lock();
    assert_eq!((state.pods_made, state.cluster.list::<Pod>().len()), (3, 3));
    let deployment = state.cluster.get::<Deployment>("a", "web").expect("it is there");
    assert_eq!(deployment.metadata.annotations["deployment.kubernetes.io/revision"], "1");
}

#[tokio::test(start_paused = true)]
async fn refused_pods_are_tried_again_and_the_refusal_is_told() {
    let done = |state: &State| {
        let is_told = |event: &&Value| event["reason"] == "FailedCreate";
        let told = state.cluster.values(EVENTS).iter().any(is_told);
        let whole =
            replica_set(state).is_some_and(|rs| rs.status.replicas == 3 && rs.status.conditions.is_empty());
        told && whole
    };
    let server = run_until(2, done).await;
    let state = server.state.lock();
    assert_eq!(state.pods_made, 3);
    let failed = state.cluster.values(EVENTS).into_iter().find(|event| event["reason"] == "FailedCreate");
    let failed = failed.expect("it is told");
    assert!(
        failed["message"]
            .as_str()
            .is_some_and(|m| m.starts_with("Error creating: ") && m.contains("exceeded quota"))
    );
    assert_eq!(failed["source"]["component"], "replicaset-controller");
}
