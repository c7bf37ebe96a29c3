//! `/debug`: what can be told of the program, and how much it logs (follows `InstallProfilingHandler` and
//! `InstallDebugFlagsHandler`).

use client::debug::{self, VALUE_BYTES_MAX};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{Body, Refusal, whole};
use crate::config::Config;

/// `page` is what follows `/debug/pprof/`.
pub fn pprof(config: &Config, page: &str) -> Result<Response<Body>, Refusal> {
    if !config.kubelet.enable_profiling_handler {
        return Err(disabled("profiling"));
    }
    let answer = debug::pprof(page).ok_or_else(|| Refusal::not_found("404 page not found"))?;
    Ok(answer.map(whole))
}

/// Sets how much is logged.
pub async fn verbosity(config: &Config, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if !config.kubelet.enable_debugging_handlers {
        return Err(Refusal::not_found("404 page not found"));
    }
    if !config.kubelet.enable_debug_flags_handler {
        return Err(disabled("flags"));
    }
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, VALUE_BYTES_MAX).collect().await;
    let body =
        body.map_err(|why| Refusal(StatusCode::BAD_REQUEST, format!("error reading request body: {why}")))?;
    Ok(config.set_verbosity.answer(&parts.method, &body.to_bytes()).map(whole))
}

fn disabled(what: &str) -> Refusal {
    Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{what} endpoint is disabled.\n"))
}
