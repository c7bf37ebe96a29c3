//! One request on its way through the pipeline: what it is about, who makes it, and how it wants its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apimachinery::{Status, Value};
use auth::UserInfo;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT, VARY, WARNING,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Response};
use jiff::Timestamp;
use store::{Entry, Revision};

use crate::audit::Record;
use crate::body::{self, Body};
use crate::conversion;
use crate::core::Core;
use crate::encodings::ListTypes;
use crate::gzip::Gzip;
use crate::kind::KindRef;
use crate::negotiation::{Format, Shape, Target, accepts_gzip};
use crate::query::{FIELD_MANAGER_MAX, Query};
use crate::request_info::RequestInfo;
use crate::view::{IncludeObject, ListMeta, View};
use crate::wire::{self, Document};

/// Smaller responses gain less from compression than it costs (upstream: defaultGzipThresholdBytes).
const GZIP_BYTES_MIN: usize = 128 << 10;

/// All warnings of one response together are cut here, as upstream does to stay within header limits.
const WARNINGS_BYTES_MAX: usize = 4 << 10;

pub struct Call {
    pub core: Arc<Core>,
    pub info: RequestInfo,
    pub query: Query,
    pub method: Method,
    pub headers: HeaderMap,
    pub user: UserInfo,
    pub target: Target,
    pub now: Timestamp,
    /// Whether the answer goes over a connection, where each piece of it is a write.
    pub is_remote: bool,
    /// What the client should know though the request succeeds.
    pub warnings: Vec<String>,
    /// What will be told of this request, if anything.
    pub audit: Option<Arc<Record>>,
    pub waiting: Waiting,
}

/// How long a request has waited for what is not this server's own work: a seat, and webhooks.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<AtomicU64>);

impl Waiting {
    /// Adds the time that this takes.
    pub async fn measure<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let outcome = work.await;
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
        outcome
    }

    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Call {
    pub fn view(&self, kind: &KindRef) -> Result<View, Status> {
        let include = IncludeObject::parse(&self.query)?;
        Ok(View { kind: kind.clone(), target: self.target, include, now: self.now, has_columns: true })
    }

    /// Who owns the fields this request writes: as the client says, else its user agent up to the first slash.
    pub fn field_manager(&self, asked: &str) -> String {
        if !asked.is_empty() {
            return asked.to_owned();
        }
        let agent = self.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        let name = agent.split('/').next().unwrap_or_default();
        name.chars().filter(|c| !c.is_control()).take(FIELD_MANAGER_MAX).collect()
    }

    /// Notes for the audit log what the client has sent.
    pub fn audit_request(&self, object: &Value) {
        if let Some(record) = &self.audit {
            record.request_object(object, self.info.verb == "patch");
        }
    }

    /// A response in the form the client wants.
    pub fn respond(&self, code: u16, document: Document) -> Result<Response<Body>, Status> {
        if let Some(record) = self.audit.as_ref().filter(|record| record.wants_response()) {
            record.response_object(wire::parse(&document.json)?);
        }
        self.respond_pieces(code, wire::render(self.target, document)?.into_iter())
    }

    fn respond_pieces(
        &self,
        code: u16,
        mut pieces: impl Iterator<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Body>, Status> {
        let mut response = Response::builder()
            .status(code)
            .header(CONTENT_TYPE, self.target.format.media_type())
            .header(CACHE_CONTROL, "no-cache, private");
        for warning in self.warning_headers() {
            response = response.header(WARNING, warning);
        }
        let (mut first, mut length) = (Vec::new(), 0);
        while length < GZIP_BYTES_MIN
            && let Some(piece) = pieces.next()
        {
            length += piece.len();
            first.push(piece);
        }
        let body = if length < GZIP_BYTES_MIN {
            body::full(wire::join(&first))
        } else if accepts_gzip(&self.headers) {
            response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
            body::pieces(Gzip::new(first.into_iter().chain(pieces)))
        } else {
            body::pieces(first.into_iter().chain(pieces))
        };
        response.body(body).map_err(Status::internal)
    }

    /// A list of stored objects, in the version of their kind. It is made while the client takes it, unless its form or
    /// somebody else wants it as a whole.
    pub async fn respond_list(
        &self,
        view: &View,
        mut entries: Vec<Arc<Entry>>,
        meta: &ListMeta,
    ) -> Result<Response<Body>, Status> {
        if self.target.shape == Shape::Table
            && let Some(rank) = view.kind.strategy.table_rank()
        {
            entries.sort_by_cached_key(|entry| rank(&conversion::decode(&entry.bytes)));
        }
        let is_audited = self.audit.as_ref().is_some_and(|record| record.wants_response());
        match self.target {
            Target { shape: Shape::Metadata, .. } if entries.is_empty() => {
                let json = vec![view.no_metadata(meta)];
                self.respond(200, Document { type_name: view.type_name(true), json })
            }
            Target { format: Format::Json, pretty: false, .. } if !is_audited => {
                self.respond_pieces(200, view.list(entries.into_iter(), meta))
            }
            Target { format: Format::Protobuf, shape: Shape::Object, .. }
                if !is_audited && conversion::is_stored_version(&view.kind) =>
            {
                let types = ListTypes {
                    list: wire::type_id(&view.type_name(true))?,
                    item: wire::type_id(&view.type_name(false))?,
                };
                let empty: Vec<Bytes> = view.list(std::iter::empty::<Bytes>(), meta).collect();
                let list = self.core.encodings.list(types, &wire::join(&empty), entries).await?;
                self.respond_pieces(200, list)
            }
            _ => {
                let json = view.list(entries.into_iter(), meta).collect();
                self.respond(200, Document { type_name: view.type_name(true), json })
            }
        }
    }

    /// One object, in the version of its kind, as the store keeps it. Without a revision it has just been written.
    pub async fn respond_object(
        &self,
        code: u16,
        kind: &KindRef,
        stored: &Bytes,
        revision: Option<Revision>,
    ) -> Result<Response<Body>, Status> {
        let view = self.view(kind)?;
        let shown = conversion::shown(&self.core, kind, stored, revision).await?;
        self.respond(code, Document { type_name: view.type_name(false), json: vec![view.object(&shown)] })
    }

    /// The answer when the request has failed after all.
    pub fn failure(&self, status: &Status) -> Response<Body> {
        let mut response = failure(status, self.target);
        for warning in self.warning_headers() {
            response.headers_mut().append(WARNING, warning);
        }
        response
    }

    pub fn warning_headers(&self) -> Vec<HeaderValue> {
        let mut size = 0;
        let mut seen = Vec::new();
        for text in &self.warnings {
            size += text.len();
            if size > WARNINGS_BYTES_MAX {
                break;
            }
            let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("299 - \"{quoted}\"");
            if !seen.contains(&header) {
                seen.push(header);
            }
        }
        seen.iter().filter_map(|header| HeaderValue::from_bytes(header.as_bytes()).ok()).collect()
    }
}

/// The answer to a request that failed. Works before anything about the request is known.
pub fn failure(status: &Status, target: Target) -> Response<Body> {
    let document = Document::status(status);
    let (format, pieces) = match wire::render(target.plain(), document) {
        Ok(pieces) => (target.format, pieces),
        Err(_) => (Format::Json, vec![crate::draft::to_json(status).into()]),
    };
    let mut response = Response::new(body::full(wire::join(&pieces)));
    *response.status_mut() =
        http::StatusCode::from_u16(status.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if status.code == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kubernetes\""));
    }
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
