//! The watch verb: what is there already if asked for, then every change as it happens, with bookmarks between.
//! Follows `ListResource`'s watch branch, `WatchServer` and the watch cache's `sendInitialEvents`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::catalogue::Kind;
use apimachinery::{Status, json};
use bytes::Bytes;
use futures_util::Stream;
use http::Response;
use store::{Entry, EventKind, Revision, Scope, Waking, WatchItem};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::body::{self, Body, CHUNK_BYTES};
use crate::call::Call;
use crate::conversion;
use crate::core::Core;
use crate::draft::to_json;
use crate::frames::{self, FrameType};
use crate::kind::KindRef;
use crate::lasting::Lasting;
use crate::list::{self, StartRevision};
use crate::metrics::{LongRunning, Metrics};
use crate::negotiation::{Format, Target};
use crate::query::{ListOptions, VersionMatch};
use crate::selection::Selection;
use crate::view::View;

/// A watch that names no timeout ends after this long, and up to half of it more so that watches do not all end at once
/// (upstream: `--min-request-timeout`).
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);

/// How often a watcher that asked for bookmarks gets one while nothing else happens.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// A bookmark that ends the initial events carries this annotation.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One running watch.
struct Watching {
    core: Arc<Core>,
    view: View,
    selection: Selection,
    /// What is sent before the first change.
    initial: VecDeque<Arc<Entry>>,
    /// Whether the end of `initial` is told by a bookmark at this revision.
    initial_bookmark: Option<Revision>,
    watch: store::Watch,
    bookmarks: bool,
    /// The revision of the latest bookmark or event sent.
    told: Revision,
    next_bookmark: Instant,
    deadline: Instant,
    stop: CancellationToken,
    alarms: Alarms,
    /// Cancelled when a custom kind is no more what it was.
    superseded: Option<CancellationToken>,
    /// Whether what is ready goes out in one piece: over a connection, where each piece is a write.
    joins: bool,
    ended: bool,
    counted: LongRunning,
}

/// What ends a wait for changes, kept from wait to wait: to set them anew costs more than to wait.
struct Alarms {
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
}

impl Alarms {
    fn new(stop: &CancellationToken, at: Instant) -> Alarms {
        Alarms { stopped: Box::pin(stop.clone().cancelled_owned()), timer: Box::pin(sleep_until(at)) }
    }

    fn set(&mut self, at: Instant) {
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
    }
}

pub async fn watch(call: &Call, kind: &KindRef) -> Result<Response<Body>, Status> {
    let mut options = ListOptions::parse(&call.query, true)?;
    options.narrow_to(&call.info.path_name)?;
    let target = call.target;
    if target.format == Format::Yaml {
        return Err(Status::not_acceptable(
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ));
    }
    let watching = Watching::start(call, kind, &options).await?;
    let mut response = Response::builder()
        .extension(Lasting)
        .header(http::header::CONTENT_TYPE, content_type(target))
        .header(http::header::CACHE_CONTROL, "no-cache, private");
    for warning in call.warning_headers() {
        response = response.header(http::header::WARNING, warning);
    }
    response.body(body::stream(watching.into_stream())).map_err(Status::internal)
}

fn content_type(target: Target) -> &'static str {
    match target.format {
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Format::Cbor => "application/cbor-seq",
        Format::Json | Format::Yaml => "application/json",
    }
}

impl Watching {
    async fn start(call: &Call, kind: &KindRef, options: &ListOptions) -> Result<Watching, Status> {
        let selection = Selection::parse(kind, options)?;
        let view = call.view(kind)?;
        let core = call.core.clone();
        let asked = list::start_revision(&options.resource_version)?;
        let wants_initial = wants_initial_events(options, asked);
        if wants_initial && let StartRevision::At(revision) = asked {
            list::refuse_future(&core, revision)?;
        }
        let (mut initial, mut initial_bookmark) = (VecDeque::new(), None);
        let from = match asked {
            _ if wants_initial => {
                let page = list::everything(&core, kind, &call.info.namespace, &selection).await?;
                initial.extend(page.entries);
                initial_bookmark = options.send_initial_events.map(|_| page.revision);
                page.revision
            }
            StartRevision::At(revision) => revision,
            StartRevision::Any | StartRevision::Newest => core.store.revision(),
        };
        let scope = scope(kind, &call.info.namespace, &selection);
        let waking = if call.is_remote { Waking::InTurn } else { Waking::Prompt };
        let watch = core.store.watch_when(scope, from, waking);
        let watch = watch.map_err(|gone| Status::expired(gone.to_string()))?;
        let now = Instant::now();
        let deadline = now + options.timeout.unwrap_or_else(|| TIMEOUT_MIN + spread(from));
        Ok(Watching {
            stop: core.draining.clone(),
            alarms: Alarms::new(&core.draining, deadline),
            superseded: kind.custom().map(|custom| custom.shared.ended.clone()),
            joins: call.is_remote,
            counted: Metrics::long_running(call),
            core,
            view,
            selection,
            initial,
            initial_bookmark: initial_bookmark.filter(|_| options.allow_watch_bookmarks),
            watch,
            bookmarks: options.allow_watch_bookmarks,
            told: from,
            next_bookmark: now + BOOKMARK_INTERVAL,
            deadline,
            ended: false,
        })
    }

    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures_util::stream::unfold(self, |mut watching| async move {
            let piece = watching.next_piece().await?;
            Some((piece, watching))
        })
    }

    /// What is sent next: a frame, over a connection together with those that are ready too. None ends the watch.
    async fn next_piece(&mut self) -> Option<Bytes> {
        let first = self.next_frame().await?;
        if !self.joins {
            return Some(first);
        }
        let Some(second) = self.ready_frame().await else { return Some(first) };
        let mut frames = vec![first, second];
        while frames.iter().map(Bytes::len).sum::<usize>() < CHUNK_BYTES
            && let Some(frame) = self.ready_frame().await
        {
            frames.push(frame);
        }
        Some(frames.concat().into())
    }

    async fn next_frame(&mut self) -> Option<Bytes> {
        if self.is_over() {
            return None;
        }
        let awaited = self.awaited().await;
        self.told_of(awaited)
    }

    /// As `next_frame`, if that would not wait for a change. A piece that is begun is finished.
    async fn ready_frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let ready = self.ready().await;
        self.told_of(ready)
    }

    fn is_over(&self) -> bool {
        let superseded = self.superseded.as_ref().is_some_and(CancellationToken::is_cancelled);
        self.ended || superseded || self.stop.is_cancelled()
    }

    /// What fails is told in a last frame.
    fn told_of(&mut self, outcome: Result<Option<Bytes>, Status>) -> Option<Bytes> {
        if let Ok(Some(frame)) = &outcome {
            self.counted.sent(frame.len());
            self.view.has_columns = false;
        }
        outcome.unwrap_or_else(|status| {
            self.ended = true;
            frames::error(self.view.target, &status).ok()
        })
    }

    /// The next frame of what is there already.
    async fn ready(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(entry) = self.initial.pop_front() {
            return self.frame(FrameType::Added, entry.revision, &entry.bytes).await.map(Some);
        }
        if let Some(revision) = self.initial_bookmark.take() {
            self.counted.listed();
            return self.bookmark(revision, true).map(Some);
        }
        while let Some(item) = self.watch.ready().map_err(|gone| Status::expired(gone.to_string()))? {
            if let Some(frame) = self.item(item).await? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The next frame, if need be that of a change to come.
    async fn awaited(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(frame) = self.ready().await? {
                return Ok(Some(frame));
            }
            self.alarms.set(if self.bookmarks {
                self.deadline.min(self.next_bookmark)
            } else {
                self.deadline
            });
            tokio::select! {
                biased;
                () = self.alarms.stopped.as_mut() => return Ok(None),
                () = cancelled(self.superseded.as_ref()) => return Ok(None),
                item = self.watch.next() => {
                    let item = item.map_err(|gone| Status::expired(gone.to_string()))?;
                    if let Some(frame) = self.item(item).await? {
                        return Ok(Some(frame));
                    }
                }
                () = self.alarms.timer.as_mut() => {
                    if Instant::now() >= self.deadline {
                        return self.last_bookmark();
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    let progress = self.watch.progress();
                    if progress > self.told {
                        return self.bookmark(progress, false).map(Some);
                    }
                }
            }
        }
    }

    async fn item(&mut self, item: WatchItem) -> Result<Option<Bytes>, Status> {
        let WatchItem::Event { kind, entry, previous } = item else { return Ok(None) };
        self.told = entry.revision;
        self.event(kind, &entry, previous.as_deref()).await
    }

    /// Before a watch times out it tells how far it came, so that its successor need not go back.
    fn last_bookmark(&mut self) -> Result<Option<Bytes>, Status> {
        self.ended = true;
        let progress = self.watch.progress();
        if self.bookmarks && progress > self.told {
            self.bookmark(progress, false).map(Some)
        } else {
            Ok(None)
        }
    }

    /// What the change means to someone who sees only what the selectors let through.
    async fn event(
        &self,
        kind: EventKind,
        entry: &Entry,
        previous: Option<&Entry>,
    ) -> Result<Option<Bytes>, Status> {
        let before = match previous {
            Some(previous) => self.selects(previous).await?,
            None => false,
        };
        let after = kind != EventKind::Deleted && self.selects(entry).await?;
        let frame = match (before, after) {
            (false, false) => return Ok(None),
            (false, true) => self.frame(FrameType::Added, entry.revision, &entry.bytes).await,
            (true, true) => self.frame(FrameType::Modified, entry.revision, &entry.bytes).await,
            (true, false) if kind == EventKind::Deleted => {
                self.frame(FrameType::Deleted, entry.revision, &entry.bytes).await
            }
            (true, false) => {
                let last_seen = previous.map_or(&entry.bytes, |p| &p.bytes);
                let bytes = crate::view::with_revision(last_seen, entry.revision);
                self.frame(FrameType::Deleted, entry.revision, &bytes).await
            }
        };
        frame.map(Some)
    }

    async fn selects(&self, entry: &Entry) -> Result<bool, Status> {
        if !self.selection.matches(entry) || !self.selection.is_open(entry) {
            return Ok(self.selection.matches(entry));
        }
        let shown =
            conversion::shown(&self.core, &self.view.kind, &entry.bytes, Some(entry.revision)).await?;
        Ok(self.selection.matches_shown(&shown))
    }

    async fn frame(
        &self,
        frame_type: FrameType,
        revision: Revision,
        stored: &Bytes,
    ) -> Result<Bytes, Status> {
        let shown = conversion::shown(&self.core, &self.view.kind, stored, Some(revision)).await?;
        self.core.frames.frame(&self.view, frame_type, revision, &shown)
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Result<Bytes, Status> {
        self.told = revision;
        let resource = &self.view.kind.stored().resource;
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let mut object = match self.view.kind.custom() {
            None => api::schema::empty(self.view.kind.stored().type_name),
            Some(_) => json!({}),
        };
        object["kind"] = resource.kind.into();
        object["apiVersion"] = resource.api_version().into();
        object["metadata"] = metadata;
        frames::encode(&self.view, FrameType::Bookmark, &to_json(&object).into())
    }
}

/// Waits for what may not come at all.
async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Without a resourceVersion, or with `0`, a watch begins with what is there, unless told otherwise.
fn wants_initial_events(options: &ListOptions, asked: StartRevision) -> bool {
    match options.send_initial_events {
        Some(wanted) => wanted && options.version_match == Some(VersionMatch::NotOlderThan),
        None => !matches!(asked, StartRevision::At(_)),
    }
}

fn scope(kind: &Kind, namespace: &str, selection: &Selection) -> Scope {
    Scope {
        resource: kind.storage.into(),
        namespace: (kind.resource.namespaced && !namespace.is_empty()).then(|| namespace.into()),
        name: selection.exact_name().map(Into::into),
    }
}

/// Up to half the minimal timeout, different from watch to watch without a source of chance.
fn spread(from: Revision) -> Duration {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let range = TIMEOUT_MIN.as_secs() / 2;
    Duration::from_secs(from.0.wrapping_mul(GOLDEN) % range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<S>(_: fn(Watching) -> S) -> usize {
        size_of::<S>()
    }

    #[test]
    fn a_watch_to_which_nothing_happens_takes_little_room() {
        let room = room(Watching::into_stream);
        assert!(room <= 1 << 10, "{room} bytes");
    }
}
