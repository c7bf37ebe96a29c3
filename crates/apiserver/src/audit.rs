//! Audit: who did what when, told stage by stage to whom the operator chose (follows `k8s.io/apiserver/pkg/audit`,
//! `WithAudit` and `WithFailedAuthenticationAudit`).

pub mod event;
pub mod log;
mod metrics;
pub mod policy;
pub mod sink;
pub mod throttle;
pub mod truncate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::meta::str_at;
use apimachinery::{Status, Value, json};
use auth::{Decision, UserInfo};
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::config::Clock;
use crate::pipeline;
use crate::request_info::RequestInfo;
use event::{Event, ObjectReference};
use metrics::Metrics;
use policy::{Level, Policy, Stage, Verdict};
use sink::{Backends, Sink};

/// Longer names of clients are cut (upstream: `maxUserAgentLength`).
const USER_AGENT_MAX: usize = 1024;
const USER_AGENT_CUT: &str = "...TRUNCATED";

/// The policy, and where events go.
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Sink>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Ends that are being told by nobody who waits for it.
    endings: TaskTracker,
}

/// A request as it comes in.
pub struct Incoming<'a> {
    pub parts: &'a Parts,
    pub info: &'a RequestInfo,
    pub id: &'a str,
    pub at: Timestamp,
    /// From the connection.
    pub address: String,
}

/// What will be told of one request.
pub struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Mutex<Event>,
    /// Whether the request's end is still to be told.
    open: AtomicBool,
}

impl Auditor {
    /// Must be called within the runtime.
    pub fn new(policy: Policy, backends: Backends, clock: Clock) -> Arc<Auditor> {
        let metrics = Arc::<Metrics>::default();
        let sink = |destination| Sink::new(destination, metrics.clone());
        let sinks = backends.into_iter().map(sink).collect();
        Arc::new(Auditor { policy, sinks, clock, metrics, endings: TaskTracker::new() })
    }

    /// Hands on what still waits for its batch. Requests that come later are told of in vain.
    pub async fn close(&self) {
        self.endings.close();
        self.endings.wait().await;
        for sink in &self.sinks {
            sink.close().await;
        }
    }

    async fn hand_out(&self, event: &Event) -> Result<(), String> {
        self.metrics.event();
        for sink in &self.sinks {
            sink.take(event).await?;
        }
        Ok(())
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        self.metrics.render()
    }

    /// Begins a record, if the policy wants one. Nobody is known when authentication has failed.
    pub fn begin(self: &Arc<Self>, incoming: &Incoming<'_>, user: Option<&UserInfo>) -> Option<Arc<Record>> {
        let nobody = UserInfo::default();
        let attributes = pipeline::attributes(incoming.info, user.unwrap_or(&nobody));
        let verdict = self.policy.evaluate(&attributes, user.is_some());
        self.metrics.level(verdict.level);
        if verdict.level == Level::None {
            return None;
        }
        let Incoming { parts, info, .. } = incoming;
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: incoming.id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            verb: info.verb.to_owned(),
            user: user.cloned().unwrap_or_default(),
            impersonated_user: None,
            source_ips: source_ips(&parts.headers, &incoming.address),
            user_agent: user_agent(&parts.headers),
            object_ref: info.is_resource.then(|| ObjectReference {
                resource: info.resource.clone(),
                namespace: info.namespace.clone(),
                name: info.name.clone(),
                api_group: info.group.clone(),
                api_version: info.version.clone(),
                subresource: info.subresource.clone(),
                ..ObjectReference::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: incoming.at,
            stage_timestamp: incoming.at,
            annotations: BTreeMap::new(),
        };
        let (event, open) = (Mutex::new(event), AtomicBool::new(false));
        Some(Arc::new(Record { auditor: self.clone(), verdict, event, open }))
    }
}

impl Record {
    /// Tells that the request has come in; one that must be told of and cannot be is not worked on.
    pub async fn received(&self) -> Result<(), Status> {
        if self.tell(Stage::RequestReceived).await.is_err() {
            self.auditor.metrics.rejected();
            return Err(Status::internal("failed to store audit event"));
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the request's end is still to be told.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub fn impersonates(&self, user: &UserInfo) {
        self.event.lock().impersonated_user = Some(user.clone());
    }

    pub fn authorized(&self, decision: &Decision) {
        let word = if decision.is_allowed() { "allow" } else { "forbid" };
        self.annotate([
            ("authorization.k8s.io/decision".to_owned(), word.to_owned()),
            ("authorization.k8s.io/reason".to_owned(), decision.reason().to_owned()),
        ]);
    }

    /// What has been said under a key stays.
    pub fn annotate(&self, annotations: impl IntoIterator<Item = (String, String)>) {
        let mut event = self.event.lock();
        for (key, value) in annotations {
            event.annotations.entry(key).or_insert(value);
        }
    }

    /// What the client has sent. A patch says nothing of the object it is for.
    pub fn request_object(&self, object: &Value, is_patch: bool) {
        let mut event = self.event.lock();
        if !is_patch {
            let reference = event.object_ref.get_or_insert_default();
            let fill = |field: &mut String, name: &str| {
                if field.is_empty() {
                    str_at(object, &["metadata", name]).clone_into(field);
                }
            };
            fill(&mut reference.namespace, "namespace");
            fill(&mut reference.name, "name");
            fill(&mut reference.uid, "uid");
            fill(&mut reference.resource_version, "resourceVersion");
        }
        if self.verdict.level >= Level::Request {
            event.request_object = Some(self.shown(object.clone()));
        }
    }

    pub fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// What the client is sent.
    pub fn response_object(&self, object: Value) {
        let object = self.shown(object);
        self.event.lock().response_object = Some(object);
    }

    fn shown(&self, mut object: Value) -> Value {
        let strip = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        if self.verdict.omit_managed_fields {
            strip(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        }
        object
    }

    /// Tells of the answer: once it is there, or, when it lasts, now and again when nobody holds the record any more.
    pub async fn answered(
        self: Arc<Self>,
        failure: Option<&Status>,
        response: Response<Body>,
        lasts: bool,
    ) -> Response<Body> {
        let code = response.status().as_u16();
        self.event.lock().response_status = Some(match failure {
            Some(status) => bounded(status),
            None => json!({"metadata": {}, "code": code}),
        });
        if let Some(status) = failure.filter(|_| self.wants_response()) {
            self.response_object(json!(status));
        }
        if !lasts {
            self.finish(Stage::ResponseComplete).await;
            return response;
        }
        self.finish(Stage::ResponseStarted).await;
        response.map(|body| {
            body.map_frame(move |frame| {
                // Held by the body, so that it ends with it.
                let _held = &self;
                frame
            })
            .boxed_unsync()
        })
    }

    /// Tells that the server has failed at the request.
    pub async fn panicked(&self, why: &str) {
        let message = format!("APIServer panic'd: {why}");
        self.event.lock().response_status = Some(json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}));
        self.finish(Stage::Panic).await;
    }

    /// Tells that nobody knows who made the request.
    pub async fn unauthenticated(&self, headers: &HeaderMap, code: u16) {
        let method = match headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            Some(value) => value.split(' ').next().unwrap_or_default().to_lowercase(),
            None => "x509".to_owned(),
        };
        self.event.lock().response_status = Some(
            json!({"metadata": {}, "message": format!("Authentication failed, attempted: {method}"), "code": code}),
        );
        self.finish(Stage::ResponseStarted).await;
    }

    async fn finish(&self, stage: Stage) {
        if matches!(stage, Stage::ResponseComplete | Stage::Panic) {
            self.open.store(false, Ordering::Relaxed);
        }
        if let Err(error) = self.tell(stage).await {
            tracing::error!(error, "Error in audit plugin");
        }
    }

    async fn tell(&self, stage: Stage) -> Result<(), String> {
        if self.verdict.omit_stages.contains(&stage) {
            return Ok(());
        }
        let event = {
            let mut event = self.event.lock();
            event.stage = stage;
            if stage != Stage::RequestReceived {
                event.stage_timestamp = (self.auditor.clock)();
            }
            event.clone()
        };
        self.auditor.hand_out(&event).await
    }
}

/// A request that has ended without an answer, or long after its beginning, is told of by whoever lets go of it last.
impl Drop for Record {
    fn drop(&mut self) {
        let is_open = *self.open.get_mut() && !self.verdict.omit_stages.contains(&Stage::ResponseComplete);
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| is_open) else { return };
        let mut event = self.event.get_mut().clone();
        event.stage = Stage::ResponseComplete;
        event.stage_timestamp = (self.auditor.clock)();
        event.response_status.get_or_insert_with(
            || json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}),
        );
        let auditor = self.auditor.clone();
        self.auditor.endings.spawn_on(
            async move {
                if let Err(error) = auditor.hand_out(&event).await {
                    tracing::error!(error, "the end of a request is not in the audit log");
                }
            },
            &runtime,
        );
    }
}

/// Of a Status what is short.
fn bounded(status: &Status) -> Value {
    let whole = json!(status);
    let mut kept = json!({"metadata": {}});
    for field in ["status", "message", "reason", "details", "code"] {
        if let Some(value) = whole.get(field) {
            kept[field] = value.clone();
        }
    }
    kept
}

/// Whom a proxy says it forwards for, then who has connected.
fn source_ips(headers: &HeaderMap, address: &str) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut ips: Vec<String> = Vec::new();
    let forwarded = text("x-forwarded-for").split(',').chain([text("x-real-ip"), address]);
    for ip in forwarded.filter_map(|ip| ip.trim().parse::<std::net::IpAddr>().ok()) {
        let ip = ip.to_canonical().to_string();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

fn user_agent(headers: &HeaderMap) -> String {
    let whole = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match whole.get(..USER_AGENT_MAX) {
        Some(start) if whole.len() > USER_AGENT_MAX => format!("{start}{USER_AGENT_CUT}"),
        _ => whole.to_owned(),
    }
}
