//! `/debug/flags` and `/debug/pprof`: how much a component logs, set while it runs, and what it can tell of its program.
//! Profiles are not made here: the program's symbols are not part of it, and the machine's own tools see every process
//! with whatever is there. Follows `routes.DebugFlags` and the handlers of `net/http/pprof`.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};

const TEXT: &str = "text/plain";
const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Where the program is told of.
pub const PPROF: &str = "/debug/pprof/";
/// Where it is set how much is logged.
pub const VERBOSITY: &str = "/debug/flags/v";
/// A number is not longer.
pub const VALUE_BYTES_MAX: usize = 64;

/// What `/debug/pprof/` lists.
const PAGES: [(&str, &str); 2] = [
    ("cmdline", "The command line of the program"),
    ("symbol", "Names of addresses in the program, of which it knows none"),
];

/// Changes how much this process logs, as its flag `--v` would have.
#[derive(Clone)]
pub struct SetVerbosity(Arc<dyn Fn(i32) + Send + Sync>);

impl SetVerbosity {
    pub fn new(set: impl Fn(i32) + Send + Sync + 'static) -> Self {
        SetVerbosity(Arc::new(set))
    }

    /// Answers a request of `/debug/flags/v` with this body.
    pub fn answer(&self, method: &Method, body: &[u8]) -> Response<Bytes> {
        if *method != Method::PUT {
            return told(StatusCode::NOT_ACCEPTABLE, "unsupported http method".to_owned());
        }
        let value = String::from_utf8_lossy(body);
        match value.parse::<i32>() {
            Ok(level) => {
                (self.0)(level);
                told(StatusCode::OK, format!("successfully set klog.logging.verbosity to {value}"))
            }
            Err(_) => {
                let why = format!("strconv.ParseInt: parsing {value:?}: invalid syntax");
                let said = format!("failed set klog.logging.verbosity {value}: {why}");
                told(StatusCode::BAD_REQUEST, said)
            }
        }
    }
}

impl fmt::Debug for SetVerbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetVerbosity")
    }
}

/// What can be set while the component runs.
pub fn flags() -> Response<Bytes> {
    let page = "<html><head><title>/debug/flags/</title></head><body>/debug/flags/<br><br>flags:<br>v<br></body></html>\n";
    answer(StatusCode::OK, HTML, page.to_owned())
}

/// Answers for a path below `/debug/pprof/`; none where nothing is.
pub fn pprof(page: &str) -> Option<Response<Bytes>> {
    match page {
        "" => Some(answer(StatusCode::OK, HTML, index())),
        "cmdline" => {
            let words: Vec<_> = std::env::args_os().map(|word| word.as_bytes().to_vec()).collect();
            Some(answer(StatusCode::OK, PLAIN, words.join(&0)))
        }
        "symbol" => Some(answer(StatusCode::OK, PLAIN, "num_symbols: 0\n".to_owned())),
        _ => None,
    }
}

/// For who leaves out the slash at the end.
pub fn to_pprof() -> Response<Bytes> {
    let mut response = answer(StatusCode::FOUND, HTML, format!("<a href=\"{PPROF}\">Found</a>.\n\n"));
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(PPROF));
    response
}

fn index() -> String {
    let row = |(name, tells): &(&str, &str)| format!("<li><a href=\"{name}\">{name}</a>: {tells}</li>");
    let rows = PAGES.iter().map(row).collect::<String>();
    format!("<html><head><title>{PPROF}</title></head><body><ul>{rows}</ul></body></html>\n")
}

fn told(code: StatusCode, said: String) -> Response<Bytes> {
    let mut response = answer(code, TEXT, said);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn answer(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    #[test]
    fn only_a_number_that_is_put_changes_how_much_is_logged() {
        let level = Arc::new(AtomicI32::new(0));
        let set = level.clone();
        let set = SetVerbosity::new(move |level| set.store(level, Ordering::Relaxed));
        let check = |method: Method, body: &str, expect: (u16, &str)| {
            let answer = set.answer(&method, body.as_bytes());
            assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (expect.0, expect.1.as_bytes()));
        };
        check(Method::PUT, "4", (200, "successfully set klog.logging.verbosity to 4"));
        let why = "strconv.ParseInt: parsing \"much\": invalid syntax";
        check(Method::PUT, "much", (400, &format!("failed set klog.logging.verbosity much: {why}")));
        check(Method::GET, "5", (406, "unsupported http method"));
        assert_eq!(level.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn the_program_tells_how_it_was_started() {
        let page = pprof("cmdline").expect("is there");
        let program = std::env::args().next().expect("a name");
        assert!(page.body().starts_with(program.as_bytes()));
        assert!(pprof("").expect("is there").body().starts_with(b"<html>"));
        assert!(pprof("profile").is_none());
    }
}
