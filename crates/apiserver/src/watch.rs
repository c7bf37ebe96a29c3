//! The watch verb: what is there already if asked for, then every change as it happens, with bookmarks between.
//! Follows `ListResource`'s watch branch, `WatchServer` and the watch cache's `sendInitialEvents`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::catalogue::Kind;
use apimachinery::{Status, json};
use bytes::Bytes;
use futures_util::Stream;
use http::Response;
use store::{Entry, EventKind, Revision, Scope, WatchItem};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body};
use crate::call::Call;
use crate::conversion;
use crate::core::Core;
use crate::draft::to_json;
use crate::frames::{self, FrameType};
use crate::kind::KindRef;
use crate::list::{self, StartRevision};
use crate::metrics::LongRunning;
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
    /// Cancelled when a custom kind is no more what it was.
    superseded: CancellationToken,
    ended: bool,
    _counted: LongRunning,
}

pub async fn watch(call: &Call, kind: &KindRef) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, true)?;
    let target = call.target;
    if target.format == Format::Yaml {
        return Err(Status::not_acceptable(
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ));
    }
    let watching = Watching::start(call, kind, &options).await?;
    let response = Response::builder()
        .header(http::header::CONTENT_TYPE, content_type(target))
        .header(http::header::CACHE_CONTROL, "no-cache, private")
        .body(body::stream(watching.into_stream()));
    response.map_err(Status::internal)
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
        let watch = core.store.watch(scope, from).map_err(|gone| Status::expired(gone.to_string()))?;
        let now = Instant::now();
        Ok(Watching {
            stop: core.draining.clone(),
            superseded: kind.custom().map(|custom| custom.shared.ended.clone()).unwrap_or_default(),
            _counted: core.metrics.long_running(call),
            core,
            view,
            selection,
            initial,
            initial_bookmark: initial_bookmark.filter(|_| options.allow_watch_bookmarks),
            watch,
            bookmarks: options.allow_watch_bookmarks,
            told: from,
            next_bookmark: now + BOOKMARK_INTERVAL,
            deadline: now + options.timeout.unwrap_or_else(|| TIMEOUT_MIN + spread(from)),
            ended: false,
        })
    }

    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures_util::stream::unfold(self, |mut watching| async move {
            let frame = watching.next_frame().await?;
            Some((frame, watching))
        })
    }

    /// None ends the watch.
    async fn next_frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        match self.step().await {
            Ok(frame) => frame,
            Err(status) => {
                self.ended = true;
                frames::error(self.view.target, &status).ok()
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(entry) = self.initial.pop_front() {
            return self.frame(FrameType::Added, entry.revision, &entry.bytes).await.map(Some);
        }
        if let Some(revision) = self.initial_bookmark.take() {
            return self.bookmark(revision, true).map(Some);
        }
        loop {
            let timer = if self.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                () = self.superseded.cancelled() => return Ok(None),
                item = self.watch.next() => match item {
                    Ok(WatchItem::Event { kind, entry, previous }) => {
                        self.told = entry.revision;
                        if let Some(frame) = self.event(kind, &entry, previous.as_deref()).await? {
                            return Ok(Some(frame));
                        }
                    }
                    Ok(WatchItem::Progress(_)) => {}
                    Err(gone) => return Err(Status::expired(gone.to_string())),
                },
                () = sleep_until(timer) => {
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
