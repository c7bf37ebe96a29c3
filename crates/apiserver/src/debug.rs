//! `/debug`: how much is logged, set while the server runs, and what can be told of the program itself. Profiles are
//! not made here: the program's symbols are not part of it, and the machine's own tools see every process.
//! Follows `routes.DebugFlags` and the handlers of `net/http/pprof`.

use std::os::unix::ffi::OsStrExt as _;

use apimachinery::Status;
use http::header::{HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};

use crate::body::{self, Body};
use crate::call::Call;
use crate::nonresource::{page_not_found, text};

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// A number is not longer.
const VALUE_BYTES_MAX: usize = 64;

/// What `/debug/pprof/` lists.
const PROFILES: [(&str, &str); 2] = [
    ("cmdline", "The command line of the program"),
    ("symbol", "Names of addresses in the program, of which it knows none"),
];

pub async fn serve(call: &Call, path: &[&str], body: Body) -> Result<Response<Body>, Status> {
    match path {
        ["flags", "v"] if call.method == Method::PUT => set_verbosity(call, body).await,
        ["flags", "v"] => answered(StatusCode::NOT_ACCEPTABLE, "unsupported http method"),
        ["flags", ..] => text(HTML, flags()),
        ["pprof"] if call.info.path.ends_with('/') => text(HTML, profiles()),
        ["pprof"] => moved("/debug/pprof/"),
        ["pprof", "cmdline"] => {
            let words: Vec<_> = std::env::args_os().map(|word| word.as_bytes().to_vec()).collect();
            text(PLAIN, words.join(&0))
        }
        ["pprof", "symbol"] => text(PLAIN, "num_symbols: 0\n"),
        ["api_priority_and_fairness", what] => {
            let details = !call.query.text("includeRequestDetails").is_empty();
            match call.core.flow_control.dump(what, details) {
                Some(dump) => text(PLAIN, dump),
                None => page_not_found(),
            }
        }
        _ => page_not_found(),
    }
}

/// Whether anything but reading is done there.
pub fn takes(path: &str, method: &Method) -> bool {
    path == "/debug/flags/v" && *method == Method::PUT
}

async fn set_verbosity(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let body = body::read_at_most(body, VALUE_BYTES_MAX).await?;
    let value = String::from_utf8_lossy(&body);
    let Some(set) = &call.core.config.set_verbosity else { return page_not_found() };
    match value.parse::<i32>() {
        Ok(level) => {
            set(level);
            answered(StatusCode::OK, &format!("successfully set klog.logging.verbosity to {value}"))
        }
        Err(_) => {
            let why = format!("strconv.ParseInt: parsing {value:?}: invalid syntax");
            answered(StatusCode::BAD_REQUEST, &format!("failed set klog.logging.verbosity {value}: {why}"))
        }
    }
}

fn answered(code: StatusCode, said: &str) -> Result<Response<Body>, Status> {
    let mut response = text("text/plain", said.to_owned())?;
    *response.status_mut() = code;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn moved(to: &'static str) -> Result<Response<Body>, Status> {
    let mut response = text(HTML, format!("<a href=\"{to}\">Found</a>.\n\n"))?;
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    Ok(response)
}

fn flags() -> &'static str {
    "<html><head><title>/debug/flags/</title></head><body>/debug/flags/<br><br>flags:<br>v<br></body></html>\n"
}

fn profiles() -> String {
    let row = |(name, tells): &(&str, &str)| format!("<li><a href=\"{name}\">{name}</a>: {tells}</li>");
    let rows = PROFILES.iter().map(row).collect::<String>();
    format!("<html><head><title>/debug/pprof/</title></head><body><ul>{rows}</ul></body></html>\n")
}
