//! The one way of every request, from whichever transport: what is it about, who makes it, may they, is there room,
//! and only then what it does. Follows upstream's `DefaultBuildHandlerChain`.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use apimachinery::Status;
use auth::user::SERVICE_ACCOUNT_USER_PREFIX;
use auth::{Attributes, Decision, Presented, UserInfo};
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use tokio::time::{timeout, timeout_at};

use crate::audit::{Incoming, Record};
use crate::body::{self, Body};
use crate::call::{self, Call, Waiting};
use crate::core::Core;
use crate::finish::Finish;
use crate::flowcontrol::{self, Classified};
use crate::impersonation;
use crate::metadata;
use crate::metrics::Finished;
use crate::negotiation::Target;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::tls::ClientCertificate;
use crate::websocket::Wish;
use crate::{aggregation, authentication, nonresource, resource, sending};

/// Every response carries the id under which the server knows the request.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A longer id is replaced.
const AUDIT_ID_MAX: usize = 64;

/// A client that has not sent its request's body by then is let go.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A component within this process, known beforehand.
    Component(UserInfo),
    /// A connection, and the client certificate it has shown, if any.
    Connection { certificate: Option<ClientCertificate>, address: Option<IpAddr> },
}

impl Peer {
    /// Where requests come from: components of this process from this machine.
    fn address(&self) -> IpAddr {
        match self {
            Peer::Connection { address: Some(address), .. } => *address,
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// The head of a request, as it was understood.
struct Head {
    parts: Parts,
    info: RequestInfo,
    query: Query,
    target: Result<Target, Status>,
    id: String,
    at: Timestamp,
}

/// What comes with a request beside its head.
pub struct Payload {
    pub body: Body,
    /// The connection itself, when the client wants to speak another protocol on it.
    pub upgrade: Option<OnUpgrade>,
}

impl Payload {
    /// With a body that has come as a whole.
    async fn buffered(self) -> Result<Payload, Status> {
        match timeout(BODY_TIMEOUT, body::read(self.body)).await {
            Ok(bytes) => Ok(Payload { body: body::full(bytes?), ..self }),
            Err(_) => Err(Status::failure(408, "Timeout", "the request's body did not come in time")),
        }
    }
}

/// Answers a request. Never fails: a failure is an answer.
pub async fn handle(core: Arc<Core>, mut request: Request<Body>, peer: Peer) -> Response<Body> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
    let start = (core.config.clock)();
    let dry_run = query.get("dryRun").is_some();
    let field_validation = query.get("fieldValidation").map(str::to_owned);
    let known = is_known(&core, &info);
    let target = Target::negotiate(&parts.headers, core.config.formats);
    let fallback = target.as_ref().copied().unwrap_or_default();
    let counted = info.clone();
    let id = audit_id(&parts).unwrap_or_else(|| metadata::new_uid(&core.config.random));
    let head = Head { parts, info, query, target, id: id.clone(), at: start };
    let learned = Learned::default();
    let answered = answer(core.clone(), head, Payload { body, upgrade }, peer, &learned);
    let result = match AssertUnwindSafe(answered).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            if let Some(record) = learned.record.get() {
                record.panicked(&text_of(&*panic)).await;
            }
            Err(Status::internal("This request caused apiserver to panic. Look in the logs for details."))
        }
    };
    let failure = result.as_ref().err().cloned();
    let mut response = result.unwrap_or_else(|status| refused(&status, fallback));
    if let Some(classified) = learned.flow.get() {
        classified.sign(response.headers_mut());
    }
    if let Some(record) = learned.record.get().filter(|record| record.is_open()) {
        let lasts = counted.is_long_running();
        response = record.clone().answered(failure.as_ref(), response, lasts).await;
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    let code = response.status().as_u16();
    let cut_off = failure.as_ref().is_some_and(|status| matches!(status.code, 429 | 504));
    let (lasts, waiting) = (counted.is_long_running(), learned.waiting.clone());
    let tell = move |bytes| {
        let took = (core.config.clock)().duration_since(start).unsigned_abs();
        let (info, waited) = (&counted, waiting.total());
        let finished =
            Finished { info, known, code, dry_run, field_validation, cut_off, took, waited, bytes };
        core.metrics.finished(&finished);
        tracing::debug!(verb = counted.verb, path = %counted.path, code, ?took, "request");
    };
    if lasts {
        tell(0);
        return response;
    }
    sending::told(response, tell)
}

/// The answer to a request that nobody has looked into. Browsers are told not to make anything of its text, which
/// repeats what was asked (upstream: `responsewriters.Forbidden`).
pub fn refused(status: &Status, target: Target) -> Response<Body> {
    let mut response = call::failure(status, target);
    if status.code == StatusCode::FORBIDDEN.as_u16() {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// What is learned of a request on its way that its answer must say.
#[derive(Default)]
struct Learned {
    record: OnceLock<Arc<Record>>,
    flow: OnceLock<Classified>,
    waiting: Waiting,
}

/// What a panic says, which the panic hook has logged: clients are not told.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown").to_owned()
}

async fn answer(
    core: Arc<Core>,
    mut head: Head,
    payload: Payload,
    peer: Peer,
    learned: &Learned,
) -> Result<Response<Body>, Status> {
    if core.draining.is_cancelled() {
        return Err(Status::service_unavailable("the server is shutting down"));
    }
    let now = (core.config.clock)();
    if head.info.is_cut_short {
        return undetermined(&head.parts.uri);
    }
    let (address, is_remote) = (peer.address(), matches!(peer, Peer::Connection { .. }));
    let author = authenticate_counting(&core, &head, peer, now).await;
    if let Some(proxies) = &core.config.authentication.request_header {
        proxies.headers.clear(&mut head.parts.headers);
    }
    let record = begin_record(&core, &head, address, author.as_ref().ok(), &learned.record).await?;
    let author = author?;
    let user = impersonation::effective_user(&core, author.clone(), &head.parts.headers).await?;
    if let Some(record) = record.as_ref().filter(|_| user != author) {
        record.impersonates(&user);
    }
    let flow = classify(&core, &head.info, &user, &learned.flow);
    authorize(&core, &head.info, &user, record.as_deref()).await?;
    let Head { parts, info, query, target, .. } = head;
    let long_running = info.is_long_running();
    let time_limit = if long_running { None } else { Some(time_limit(&query, core.config.request_timeout)?) };
    // Whoever sends slowly waits before taking a seat, and takes nobody else's.
    let payload = if long_running { payload } else { payload.buffered().await? };
    let writes = info.is_mutating();
    let seat = match flow {
        Some(flow) => {
            let _queued = core.metrics.gates.queue(writes);
            let width = flowcontrol::width(&core, &info, &query);
            learned.waiting.measure(core.flow_control.enter(flow, &info, &user, width)).await?
        }
        None => None,
    };
    // Paths that are no resources serve formats of their own.
    let mut target = if info.is_resource && !long_running { target? } else { target.unwrap_or_default() };
    target.pretty |= query.flag("pretty");
    let mut call = Call {
        core,
        info,
        query,
        method: parts.method,
        headers: parts.headers,
        user,
        target,
        now,
        is_remote,
        warnings: Vec::new(),
        audit: record,
        waiting: learned.waiting.clone(),
    };
    let Some(time_limit) = time_limit else {
        // A watch has its seat until it has begun.
        let _seat = seat;
        return Box::pin(stream(&mut call, payload, parts.uri)).await;
    };
    let in_flight = call.core.metrics.gates.enter(writes);
    let deadline = tokio::time::Instant::now() + time_limit;
    // Boxed, as the future is large: it is moved twice.
    let work = Box::pin(async move {
        let held = (seat, in_flight);
        let response = route(&mut call, payload, parts.uri).await?;
        Ok(sending::until(response, deadline, held))
    });
    let in_time = async { if writes { Finish::of(work).await } else { work.await } };
    let too_late = |_| Err(Status::timeout("request did not complete within the allotted timeout", 0));
    timeout_at(deadline, in_time).await.unwrap_or_else(too_late)
}

/// What is said of a path that does not tell what it is about (upstream: `WithRequestInfo`).
fn undetermined(uri: &Uri) -> Result<Response<Body>, Status> {
    let (path, whole) = (uri.path(), uri.path_and_query().map_or(uri.path(), |whole| whole.as_str()));
    let why = format!("unable to determine kind and namespace from url, {path}");
    let text = format!("Internal Server Error: {whole:?}: failed to create RequestInfo: {why}\n");
    let response = Response::builder()
        .status(StatusCode::INTERNAL_SERVER_ERROR)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    response.body(body::full(text)).map_err(Status::internal)
}

/// What the request may take: what its sender says, if that is less than the server's own limit (upstream:
/// `WithRequestDeadline`).
fn time_limit(query: &Query, max: Duration) -> Result<Duration, Status> {
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(max);
    }
    let asked = apimachinery::time::parse_duration(text).ok_or_else(|| {
        let why = format!("invalid timeout specified in the request URL - time: invalid duration {text:?}");
        Status::bad_request(why)
    })?;
    Ok(Duration::try_from(asked).ok().filter(|asked| !asked.is_zero()).map_or(max, |asked| asked.min(max)))
}

/// As [`authenticate`], and counts what came of it.
async fn authenticate_counting(
    core: &Core,
    head: &Head,
    peer: Peer,
    now: Timestamp,
) -> Result<UserInfo, Status> {
    let (gates, started) = (&core.metrics.gates, Instant::now());
    let has_token = head.parts.headers.contains_key(AUTHORIZATION);
    let expires = match &peer {
        Peer::Connection { certificate: Some(certificate), .. } if !has_token => certificate.expires(),
        _ => None,
    };
    let author = authenticate(core, head, peer, now).await;
    let result = match &author {
        Ok(_) => "success",
        Err(_) if has_token => "error",
        Err(_) => "failure",
    };
    gates.authenticated(result, started.elapsed());
    if let Ok(user) = &author {
        gates.user(&user.name);
        if let Some(expires) = expires {
            gates.certificate((expires - now.as_second()) as f64);
        }
        if has_token && user.name.starts_with(SERVICE_ACCOUNT_USER_PREFIX) {
            gates.service_account_token();
        }
    }
    author
}

async fn authenticate(core: &Core, head: &Head, peer: Peer, now: Timestamp) -> Result<UserInfo, Status> {
    match peer {
        Peer::Component(user) => Ok(user),
        Peer::Connection { certificate, .. } => {
            let presented = Presented {
                certificate: certificate.as_ref().map(ClientCertificate::presented),
                front_proxy: certificate.as_ref().and_then(ClientCertificate::front_proxy),
                headers: &head.parts.headers,
            };
            authentication::authenticate(core, &presented, &head.info.path, now).await
        }
    }
}

/// Begins to tell of a request, if anybody wants to know; of one whose author nobody knows, this is all.
async fn begin_record(
    core: &Core,
    head: &Head,
    address: IpAddr,
    author: Option<&UserInfo>,
    slot: &OnceLock<Arc<Record>>,
) -> Result<Option<Arc<Record>>, Status> {
    let Some(auditor) = &core.config.auditor else { return Ok(None) };
    let Head { parts, info, id, at, .. } = head;
    let incoming = Incoming { parts, info, id, at: *at, address: address.to_string() };
    let Some(record) = auditor.begin(&incoming, author) else { return Ok(None) };
    if author.is_none() {
        Box::pin(record.unauthenticated(&parts.headers, Status::unauthorized().code)).await;
        return Ok(None);
    }
    // Boxed, as few servers have need of its room.
    Box::pin(record.received()).await?;
    Ok(Some(slot.get_or_init(|| record).clone()))
}

/// The flow of a request that needs a seat, which all do but those that last; watches need one to begin.
fn classify<'a>(
    core: &Core,
    info: &RequestInfo,
    user: &UserInfo,
    slot: &'a OnceLock<Classified>,
) -> Option<&'a Classified> {
    if info.is_long_running() && info.verb != "watch" {
        return None;
    }
    let classified = core.flow_control.classify(info, user)?;
    Some(slot.get_or_init(|| classified))
}

async fn authorize(
    core: &Core,
    info: &RequestInfo,
    user: &UserInfo,
    record: Option<&Record>,
) -> Result<(), Status> {
    let wanted = attributes(info, user);
    let started = Instant::now();
    let decision = core.authorize(&wanted).await;
    let result = match &decision {
        Decision::Allow(_) => "allowed",
        Decision::NoOpinion(_) => "no-opinion",
        Decision::Deny(_) => "denied",
    };
    core.metrics.gates.authorized(result, started.elapsed());
    if let Some(record) = record {
        record.authorized(&decision);
    }
    if decision.is_allowed() { Ok(()) } else { Err(wanted.forbidden(decision.reason())) }
}

/// The id under which whoever forwards a request already knows it.
fn audit_id(parts: &Parts) -> Option<String> {
    let id = parts.headers.get(AUDIT_ID)?.to_str().ok()?;
    (!id.is_empty() && id.len() <= AUDIT_ID_MAX).then(|| id.to_owned())
}

/// What is answered as long as the client listens, over WebSocket for one that wishes so.
async fn stream(call: &mut Call, payload: Payload, uri: Uri) -> Result<Response<Body>, Status> {
    let elsewhere = call.core.aggregator.of_path(&call.core.store, &call.info.path).await;
    let Some(wish) = Wish::of(&call.headers, &call.info).filter(|_| elsewhere.is_none()) else {
        return route(call, payload, uri).await;
    };
    let plain = Payload { body: payload.body, upgrade: None };
    let response = route(call, plain, uri).await?;
    Ok(wish.fulfil(payload.upgrade, response, call.audit.clone()))
}

async fn route(call: &mut Call, payload: Payload, uri: Uri) -> Result<Response<Body>, Status> {
    if let Some(elsewhere) = call.core.aggregator.of_path(&call.core.store, &call.info.path).await {
        return Box::pin(aggregation::serve(call, payload, &uri, elsewhere)).await;
    }
    let served = if call.info.is_resource {
        resource::serve(call, payload, uri).await
    } else {
        Box::pin(nonresource::serve(call, payload.body)).await
    };
    Ok(served.unwrap_or_else(|status| call.failure(&status)))
}

pub fn attributes<'a>(info: &'a RequestInfo, user: &'a UserInfo) -> Attributes<'a> {
    if !info.is_resource {
        return Attributes { verb: info.verb, path: &info.path, ..Attributes::of(user) };
    }
    Attributes {
        verb: info.verb,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        fields: info.fields.terms(),
        labels: info.labels.requirements(),
        ..Attributes::of(user)
    }
}

/// Whether the path names something served, so that metrics may carry its name.
fn is_known(core: &Core, info: &RequestInfo) -> bool {
    info.is_resource
        && core
            .kind(&info.group, &info.version, &info.resource)
            .is_some_and(|kind| info.subresource.is_empty() || kind.subresource(&info.subresource).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// It is moved several times on its way, whatever is asked.
    #[test]
    fn a_request_takes_no_room_for_what_others_ask() {
        let (whole, routed) = (room(handle), room(route));
        assert!(whole <= 7 << 10 && routed <= 2 << 10, "{whole} and {routed} bytes");
    }

    #[test]
    fn a_sender_may_ask_for_less_time_than_the_server_gives() {
        let check = |query: &str, expect: Result<u64, &str>| {
            let limit = time_limit(&Query::parse(query), Duration::from_secs(60));
            let found = limit.map(|limit| limit.as_secs()).map_err(|status| status.message);
            assert_eq!(found, expect.map_err(str::to_owned), "{query}");
        };
        check("", Ok(60));
        check("timeout=10s", Ok(10));
        check("timeout=0s", Ok(60));
        check("timeout=-5s", Ok(60));
        check("timeout=2m", Ok(60));
        let refusal = "invalid timeout specified in the request URL - time: invalid duration \"soon\"";
        check("timeout=soon", Err(refusal));
    }
}
