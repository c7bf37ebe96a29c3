//! `/logs/`: the node's own log files, as they are (follows `InstallSystemLogHandler`; answers are those of Go's
//! `http.FileServer`).

use std::io;
use std::path::{Component, Path, PathBuf};

use client::query::decode;
use futures_util::TryStreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::{Body, Refusal, text};

pub const PREFIX: &str = "/logs/";
const DIR: &str = "/var/log";
/// A folder of more files is not listed to its end.
const ENTRIES_MAX: usize = 10_000;
/// What is looked at to tell text from other files, as in Go.
const SNIFFED_BYTES: u64 = 512;

/// Answers for the part of the path after `/logs`.
pub async fn serve(method: &Method, path: &str) -> Result<Response<Body>, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::wrong_method());
    }
    serve_below(Path::new(DIR), method, path).await
}

async fn serve_below(root: &Path, method: &Method, path: &str) -> Result<Response<Body>, Refusal> {
    let decoded = decode(path);
    let file = below(root, &decoded).ok_or_else(|| Refusal::not_found("404 page not found\n"))?;
    let found = fs::metadata(&file).await.map_err(|error| refusal(&error))?;
    let last = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match (found.is_dir(), decoded.is_empty() || decoded.ends_with('/')) {
        (true, true) => list(&file).await.map_err(|error| refusal(&error)),
        (true, false) => Ok(redirect(&format!("{}/", encode(last)))),
        (false, true) => Ok(redirect(&format!("../{}", encode(last)))),
        (false, false) => send(&file, method).await.map_err(|error| refusal(&error)),
    }
}

/// The file that a path means; nothing above `root`. Links are followed.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let mut file = root.to_owned();
    let mut depth = 0_usize;
    for part in Path::new(path.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => {
                file.push(name);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                file.pop();
                depth -= 1;
            }
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!path.contains('\0')).then_some(file)
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::not_found("404 page not found\n"),
        io::ErrorKind::PermissionDenied => Refusal(StatusCode::FORBIDDEN, "403 Forbidden\n".to_owned()),
        _ => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n".to_owned()),
    }
}

fn redirect(location: &str) -> Response<Body> {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, String::new());
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn list(dir: &Path) -> io::Result<Response<Body>> {
    let mut entries = fs::read_dir(dir).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if names.len() == ENTRIES_MAX {
            break;
        }
        let is_dir = fs::metadata(entry.path()).await.is_ok_and(|found| found.is_dir());
        let name = entry.file_name().to_string_lossy().into_owned();
        names.push(if is_dir { format!("{name}/") } else { name });
    }
    names.sort();
    let links = names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", encode(name), escape(name)));
    let page = format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        links.collect::<String>()
    );
    let mut response = text(StatusCode::OK, page);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}

/// As long as the file is now: a log may grow while it is sent.
async fn send(path: &Path, method: &Method) -> io::Result<Response<Body>> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    let mut head = Vec::new();
    (&mut file).take(SNIFFED_BYTES).read_to_end(&mut head).await?;
    file.seek(io::SeekFrom::Start(0)).await?;
    let kind = if is_text(&head) { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let mut response = if *method == Method::HEAD {
        text(StatusCode::OK, String::new())
    } else {
        let frames = ReaderStream::new(file.take(length)).map_ok(Frame::data).map_err(Into::into);
        Response::new(StreamBody::new(frames).boxed_unsync())
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Control characters other than those of text tell of something else.
fn is_text(head: &[u8]) -> bool {
    let binary = |byte: &u8| matches!(byte, 0x00..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    !head.iter().any(binary)
}

/// As part of a relative link.
fn encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/$&+,=@".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn escape(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("node-logs-{}", std::process::id()));
            std::fs::create_dir_all(dir.join("apt")).expect("makes");
            std::fs::write(dir.join("sys log"), "one\ntwo\n").expect("writes");
            std::fs::write(dir.join("wtmp"), [0_u8; 4]).expect("writes");
            Dir(dir)
        }

        /// Code, kind and body; of a redirect the place.
        async fn get(&self, path: &str) -> (u16, String, String) {
            let response = match serve_below(&self.0, &Method::GET, path).await {
                Err(Refusal(code, why)) => return (code.as_u16(), String::new(), why),
                Ok(response) => response,
            };
            let header = |name| {
                response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned)
            };
            let (code, kind) = (response.status().as_u16(), header(CONTENT_TYPE).unwrap_or_default());
            let location = header(LOCATION);
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let body = location.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            (code, kind, body)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("removes");
        }
    }

    #[tokio::test]
    async fn files_are_sent_and_folders_are_listed() {
        let dir = Dir::new();
        let plain = "text/plain; charset=utf-8".to_owned();
        assert_eq!(dir.get("sys%20log").await, (200, plain, "one\ntwo\n".to_owned()));
        assert_eq!(dir.get("wtmp").await.1, "application/octet-stream");
        let (code, kind, page) = dir.get("").await;
        assert_eq!((code, kind.as_str()), (200, "text/html; charset=utf-8"));
        let links = "<pre>\n<a href=\"apt/\">apt/</a>\n<a href=\"sys%20log\">sys log</a>\n<a href=\"wtmp\">wtmp</a>\n</pre>\n";
        assert!(page.ends_with(links), "{page}");
        assert_eq!((dir.get("apt").await.0, dir.get("apt").await.2), (301, "apt/".to_owned()));
        assert_eq!(dir.get("wtmp/").await.2, "../wtmp");
        for missing in ["nothing", "wtmp/x"] {
            assert_eq!(dir.get(missing).await.0, 404, "{missing}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let check = |path: &str, expect: &str| {
            assert_eq!(below(Path::new("/var/log"), path), Some(PathBuf::from(expect)), "{path}");
        };
        check("../etc/passwd", "/var/log/etc/passwd");
        check("a/../../../etc", "/var/log/etc");
        check("//a/./b", "/var/log/a/b");
        assert_eq!(below(Path::new("/var/log"), "a\0"), None);
    }
}
