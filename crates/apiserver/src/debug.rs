//! `/debug` of a server of this crate: how much is logged, what can be told of the program, and of the API server whom
//! it keeps waiting.

use apimachinery::Status;
use client::debug::{self, SetVerbosity, VALUE_BYTES_MAX, VERBOSITY};
use http::{Method, Response};

use crate::body::{self, Body};
use crate::call::Call;
use crate::nonresource::{page_not_found, text, uncached};

const PLAIN: &str = "text/plain; charset=utf-8";

/// What the API server shows; `path` is below `/debug`.
pub async fn serve(call: &Call, path: &[&str], body: Body) -> Result<Response<Body>, Status> {
    if let ["api_priority_and_fairness", what] = path {
        let details = !call.query.text("includeRequestDetails").is_empty();
        return match call.core.flow_control.dump(what, details) {
            Some(dump) => text(PLAIN, dump),
            None => page_not_found(),
        };
    }
    match &call.core.config.set_verbosity {
        Some(set) => serve_profiling(set, &call.method, &call.info.path, body).await,
        None => page_not_found(),
    }
}

/// What is shown of any program, unless `--profiling` forbids it.
pub async fn serve_profiling(
    set: &SetVerbosity,
    method: &Method,
    path: &str,
    body: Body,
) -> Result<Response<Body>, Status> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["debug", "flags", "v"] => {
            let body = body::read_at_most(body, VALUE_BYTES_MAX).await?;
            Ok(uncached(set.answer(method, &body)))
        }
        ["debug", "flags", ..] => Ok(uncached(debug::flags())),
        ["debug", "pprof"] if !path.ends_with('/') => Ok(uncached(debug::to_pprof())),
        ["debug", "pprof", page @ ..] => match debug::pprof(&page.join("/")) {
            Some(page) => Ok(uncached(page)),
            None => page_not_found(),
        },
        _ => page_not_found(),
    }
}

/// Whether anything but reading is done there.
pub fn takes(path: &str, method: &Method) -> bool {
    path == VERBOSITY && *method == Method::PUT
}
