//! One request on its way through the pipeline: what it is about, who makes it, and how it wants its answer.

use std::sync::Arc;

use apimachinery::{Status, Value};
use auth::UserInfo;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT, VARY, WARNING,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Response};
use jiff::Timestamp;
use store::Revision;

use crate::audit::Record;
use crate::body::{self, Body};
use crate::conversion;
use crate::core::Core;
use crate::kind::KindRef;
use crate::negotiation::{Format, Target, accepts_gzip};
use crate::query::{FIELD_MANAGER_MAX, Query};
use crate::request_info::RequestInfo;
use crate::view::{IncludeObject, View};
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
    /// What the client should know though the request succeeds.
    pub warnings: Vec<String>,
    /// What will be told of this request, if anything.
    pub audit: Option<Arc<Record>>,
}

impl Call {
    pub fn view(&self, kind: &KindRef) -> Result<View, Status> {
        let include = IncludeObject::parse(&self.query)?;
        Ok(View { kind: kind.clone(), target: self.target, include, now: self.now })
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
        let pieces = wire::render(self.target, document)?;
        let mut response = Response::builder()
            .status(code)
            .header(CONTENT_TYPE, self.target.format.media_type())
            .header(CACHE_CONTROL, "no-cache, private");
        for warning in self.warning_headers() {
            response = response.header(WARNING, warning);
        }
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let body = if length >= GZIP_BYTES_MIN && accepts_gzip(&self.headers) {
            response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
            gzip(&pieces)
        } else {
            match <[Bytes; 1]>::try_from(pieces) {
                Ok([whole]) => body::full(whole),
                Err(pieces) => body::chunks(pieces),
            }
        };
        response.body(body).map_err(Status::internal)
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

    fn warning_headers(&self) -> Vec<HeaderValue> {
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
    let mut response = Response::new(body::chunks(pieces));
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

fn gzip(pieces: &[Bytes]) -> Body {
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        encoder.write_all(piece).expect("writing to memory does not fail");
    }
    body::full(encoder.finish().expect("writing to memory does not fail"))
}
