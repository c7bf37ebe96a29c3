//! Container logs: CRI-format files, read from where the client asks, and followed as they grow
//! (follows `kuberuntime/logs`).

mod file;

use std::io;
use std::path::{Path, PathBuf};

use api::view::core::Pod;
use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::broadcast;

use super::route::Target;
use super::{Body, Refusal, Server};
use crate::inotify::Changes;
use crate::observe::{self, Container, Observed, State};
use crate::worker::container_log;
use client::query::{query_flag, query_value};
use file::LogFile;

/// What of a log the client wants.
#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    timestamps: bool,
    previous: bool,
    since: Option<Timestamp>,
    tail_lines: Option<usize>,
    limit_bytes: Option<u64>,
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let number = |name: &str| match query_value(query, name) {
            None => Ok(None),
            Some(text) => {
                text.parse::<u64>().map(Some).map_err(|_| format!("{name}: Invalid value: {text:?}"))
            }
        };
        let since_time = match query_value(query, "sinceTime") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| format!("sinceTime: Invalid value: {text:?}"))?),
        };
        let since_seconds =
            number("sinceSeconds")?.map(|s| SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX)));
        Ok(Options {
            follow: query_flag(query, "follow"),
            timestamps: query_flag(query, "timestamps"),
            previous: query_flag(query, "previous"),
            since: since_time.or(since_seconds.map(|s| now.saturating_sub(s).unwrap_or(Timestamp::MIN))),
            tail_lines: number("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            limit_bytes: number("limitBytes")?,
        })
    }
}

pub async fn serve(server: &Server, target: &Target, query: &str) -> Result<Response<Body>, Refusal> {
    let options =
        Options::parse(query, Timestamp::now()).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
    let pod = server.pod(target)?;
    if !crate::pod::all_containers(&pod).any(|(c, _)| c.name == target.container) {
        let message = format!("container {:?} not found in pod {:?}", target.container, target.pod);
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let observed = observe::observe(&server.shared.runtime, &pod).await;
    let observed =
        observed.map_err(|s| Refusal(StatusCode::INTERNAL_SERVER_ERROR, s.message().to_owned()))?;
    let wanted = if options.previous {
        previous(&pod, &observed, &target.container)
    } else {
        observed.container(&target.container)
    };
    let container = wanted.ok_or_else(|| {
        let message = if options.previous {
            format!("previous terminated container {:?} in pod {:?} not found", target.container, target.pod)
        } else {
            without_log(&pod, &target.container)
        };
        Refusal(StatusCode::BAD_REQUEST, message)
    })?;
    let path = container_log(&server.shared.config, &pod, &target.container, container.attempt);
    let follow = options.follow && container.state != State::Exited;
    let liveness = Liveness {
        turns: server.shared.turns.subscribe(),
        server: server.clone(),
        pod_uid: pod.metadata.uid.clone(),
        container_id: container.id.clone(),
        asked: false,
    };
    let reader = LogReader::open(path, options, follow.then_some(liveness)).await;
    let reader =
        reader.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("log cannot be read: {e}")))?;
    let frames = stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), reader)),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), reader)),
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Why a container has no log (upstream: `validateContainerLogStatus`).
fn without_log(pod: &Pod, name: &str) -> String {
    let container = format!("container {name:?} in pod {:?}", pod.metadata.name);
    let Some(status) = crate::pod::container_status(pod, name) else {
        return format!("{container} is not available");
    };
    let waiting = status.state.waiting.as_ref().map(|waiting| waiting.reason.as_str());
    match waiting {
        _ if status.state.terminated.is_some() => format!("{container} is terminated"),
        Some("ErrImagePull") => format!("{container} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => {
            format!("{container} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("{container} is waiting to start: {reason}"),
        None => format!("{container} is waiting to start - no logs yet"),
    }
}

/// The container that the API shows as the last to have ended: while a crashed one waits to start again that is itself,
/// not the one before it (upstream: `validateContainerLogStatus`).
fn previous<'o>(pod: &Pod, observed: &'o Observed, name: &str) -> Option<&'o Container> {
    let ended = crate::pod::container_status(pod, name).and_then(|s| s.last_state.terminated.as_ref());
    let id = ended.and_then(|end| end.container_id.rsplit("://").next());
    let told = observed.containers.iter().find(|c| Some(c.id.as_str()) == id);
    told.or_else(|| observed.previous(name))
}

/// Tells a follower whether more can come.
struct Liveness {
    server: Server,
    pod_uid: String,
    container_id: String,
    /// Which pods changed, since before the container was first asked for.
    turns: broadcast::Receiver<Option<String>>,
    /// The container was seen running since the last change.
    asked: bool,
}

impl Liveness {
    /// Waits until the pod changed, or may have.
    async fn changed(&mut self) {
        loop {
            match self.turns.recv().await {
                Ok(Some(uid)) if uid != self.pod_uid => {}
                // The kubelet ends: nobody will tell any more, and the connection goes with it.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
            }
        }
        self.asked = false;
    }

    /// Whether the container still runs; not asked again before its pod changed.
    async fn still_runs(&mut self) -> bool {
        if !self.asked {
            self.asked = self.runs().await;
        }
        self.asked
    }

    async fn runs(&self) -> bool {
        let request =
            runtime::cri::ContainerStatusRequest { container_id: self.container_id.clone(), verbose: false };
        let status = self.server.shared.runtime.runtime.clone().container_status(request).await;
        let state = status.ok().and_then(|answer| answer.into_inner().status).map(|s| s.state);
        state == Some(runtime::cri::ContainerState::ContainerRunning as i32)
    }
}

/// A line of a CRI log: `TIME STREAM TAG TEXT`; tag `P` marks a line that goes on in the next one.
struct Line<'a> {
    time: &'a str,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(raw: &'a [u8]) -> Option<Line<'a>> {
        let mut parts = raw.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        parts.next()?;
        let tag = parts.next()?;
        Some(Line { time, partial: tag == b"P", text: parts.next().unwrap_or_default() })
    }
}

struct LogReader {
    file: LogFile,
    options: Options,
    /// A line read so far, while its end is not written yet.
    pending: Vec<u8>,
    left: Option<u64>,
    /// Set while following.
    liveness: Option<Liveness>,
    /// The container was seen ended: what is in the file now is all.
    last_round: bool,
    changes: Option<Changes>,
}

impl LogReader {
    async fn open(path: PathBuf, options: Options, liveness: Option<Liveness>) -> io::Result<Self> {
        let changes = match &liveness {
            Some(_) => Some(changes_of(&path)?),
            None => None,
        };
        let file = LogFile::open(path, options.tail_lines).await?;
        let left = options.limit_bytes;
        Ok(LogReader { file, options, pending: Vec::new(), left, liveness, last_round: false, changes })
    }

    /// The next piece for the client, or `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            let read = self.file.read_line(&mut self.pending).await?;
            if read > 0 && self.pending.ends_with(b"\n") {
                let raw = std::mem::take(&mut self.pending);
                if let Some(bytes) = self.render(raw.trim_ascii_end_newline()) {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if !self.wait().await? {
                return Ok(None);
            }
        }
    }

    fn render(&mut self, raw: &[u8]) -> Option<Bytes> {
        let line = Line::parse(raw)?;
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return None;
        }
        let mut out = Vec::with_capacity(raw.len() + 1);
        if self.options.timestamps {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        Some(out.into())
    }

    /// Waits until the file has grown; false when it will not any more.
    async fn wait(&mut self) -> io::Result<bool> {
        let Some(liveness) = &mut self.liveness else { return Ok(false) };
        if self.file.goes_on().await? {
            // Whoever watches the old file would miss what is written to the new one.
            self.changes = Some(changes_of(self.file.path())?);
            return Ok(true);
        }
        if self.last_round {
            return Ok(false);
        }
        if !liveness.still_runs().await {
            self.last_round = true;
            return Ok(true);
        }
        if let Some(changes) = &mut self.changes {
            tokio::select! {
                written = changes.wait() => written?,
                () = liveness.changed() => {}
            }
        }
        Ok(true)
    }
}

/// What is written to a log, and a new file in its place.
fn changes_of(log: &Path) -> io::Result<Changes> {
    let changes = Changes::new()?;
    if let Some(dir) = log.parent() {
        changes.watch(dir, AddWatchFlags::IN_CREATE)?;
    }
    match changes.watch(log, AddWatchFlags::IN_MODIFY) {
        // Moved away just now: the folder tells of the next one.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(changes),
    }
}

trait TrimNewline {
    fn trim_ascii_end_newline(&self) -> &[u8];
}

impl TrimNewline for Vec<u8> {
    fn trim_ascii_end_newline(&self) -> &[u8] {
        self.strip_suffix(b"\n").unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    async fn check(query: &str, expect: &str) {
        let path = std::env::temp_dir().join(format!(
            "log-{}-{:x}",
            std::process::id(),
            Timestamp::now().as_nanosecond()
        ));
        std::fs::write(&path, LOG).expect("writes");
        let options = Options::parse(query, Timestamp::now()).expect("options");
        let mut reader = LogReader::open(path.clone(), options, None).await.expect("opens");
        let mut out = Vec::new();
        while let Some(bytes) = reader.next().await.expect("reads") {
            out.extend_from_slice(&bytes);
        }
        std::fs::remove_file(path).expect("removes");
        assert_eq!(String::from_utf8(out).expect("text"), expect, "{query}");
    }

    #[test]
    fn who_finds_no_log_reads_why() {
        let check = |statuses: Value, expect: &str| {
            let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": statuses}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            assert_eq!(without_log(&pod, "a"), format!("container \"a\" in pod \"p\" is {expect}"));
        };
        let waiting = |reason: &str| json!([{"name": "a", "state": {"waiting": {"reason": reason}}}]);
        check(json!([]), "not available");
        check(json!([{"name": "a"}]), "waiting to start - no logs yet");
        check(waiting("PodInitializing"), "waiting to start: PodInitializing");
        check(waiting("ErrImagePull"), "waiting to start: image can't be pulled");
        check(waiting("ImagePullBackOff"), "waiting to start: trying and failing to pull image");
        check(json!([{"name": "a", "state": {"terminated": {"exitCode": 137}}}]), "terminated");
    }

    #[tokio::test]
    async fn the_client_gets_what_it_asks_for() {
        check("", "one\ntwo\nthree\n").await;
        check("tailLines=1", "three\n").await;
        check("tailLines=0", "").await;
        check("tailLines=99", "one\ntwo\nthree\n").await;
        check("sinceTime=2026-01-01T00:00:03Z&timestamps=true", "2026-01-01T00:00:03Z three\n").await;
        check("limitBytes=5", "one\nt").await;
    }

    #[test]
    fn the_previous_container_is_the_one_the_api_shows_as_ended() {
        let container = |id: &str| Container { id: id.into(), name: "a".into(), ..Default::default() };
        let observed = Observed { containers: ["2", "1"].map(container).into(), ..Default::default() };
        let check = |container_id: Option<&str>, expect: &str| {
            let last = apimachinery::json!({"terminated": {"containerID": container_id.unwrap_or_default()}});
            let status = apimachinery::json!({"name": "a", "lastState": if container_id.is_some() { last } else { apimachinery::json!({}) }});
            let pod = apimachinery::json!({"status": {"containerStatuses": [status]}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            assert_eq!(previous(&pod, &observed, "a").expect("one").id, expect, "{container_id:?}");
        };
        check(Some("coxswain://2"), "2");
        check(Some("coxswain://1"), "1");
        check(Some("coxswain://removed"), "1");
        check(None, "1");
    }

    #[test]
    fn any_number_of_seconds_is_a_time() {
        let query = format!("sinceSeconds={}", u64::MAX);
        let options = Options::parse(&query, Timestamp::now()).expect("options");
        assert_eq!(options.since, Some(Timestamp::MIN));
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        assert!(Options::parse("tailLines=-1", Timestamp::UNIX_EPOCH).is_err());
        assert!(Options::parse("sinceTime=yesterday", Timestamp::UNIX_EPOCH).is_err());
    }
}
