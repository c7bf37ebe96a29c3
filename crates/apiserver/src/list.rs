//! The list verb: one consistent page of objects, which revision it shows, and how to go on.
//! Follows `ListResource`, `storage.ValidateListOptions` and the watch cache's reading of resourceVersion.

use std::cell::Cell;

use api::catalogue::Kind;
use apimachinery::Status;
use apimachinery::field::{self, Path};
use apimachinery::status::{StatusCause, StatusDetails};
use http::Response;
use store::{Gone, Key, Page, Revision};

use crate::body::Body;
use crate::call::Call;
use crate::continue_token::Continue;
use crate::conversion;
use crate::core::Core;
use crate::kind::KindRef;
use crate::query::{ListOptions, VersionMatch};
use crate::selection::Selection;
use crate::view::ListMeta;

/// Seconds after which a client that asked for the future may ask again.
const FUTURE_RETRY_SECONDS: i32 = 1;

/// What a resourceVersion parameter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRevision {
    /// Absent: the newest state.
    Newest,
    /// `0`: any state will do.
    Any,
    At(Revision),
}

pub fn start_revision(text: &str) -> Result<StartRevision, Status> {
    match text {
        "" => Ok(StartRevision::Newest),
        "0" => Ok(StartRevision::Any),
        text => text.parse().map(StartRevision::At).map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            let field = Path::new("resourceVersion");
            Status::failure(500, "", field::Error::invalid(&field, text, why).to_string())
        }),
    }
}

/// Where a page starts and which state it shows; `at` none is the newest.
struct Start {
    at: Option<Revision>,
    after: Option<Key>,
}

pub async fn list(call: &Call, kind: &KindRef) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(kind, &options)?;
    let view = call.view(kind)?;
    let (page, meta) = wanted(call, kind, &options, &selection).await?;
    let entries = conversion::shown_entries(&call.core, kind, &page.entries).await?.into_owned();
    call.respond_list(&view, entries, &meta).await
}

/// The page that a request asks for, and what is said of it.
pub async fn wanted(
    call: &Call,
    kind: &KindRef,
    options: &ListOptions,
    selection: &Selection,
) -> Result<(Page, ListMeta), Status> {
    let start = start(&call.core, kind, options)?;
    let (page, fetched) = page(&call.core, kind, &call.info.namespace, selection, &start, options.limit)
        .map_err(|_| expired(options))?;
    let meta = list_meta(&page, selection);
    let page = selected(&call.core, kind, selection, page).await?;
    call.core.metrics.lists.served(kind, fetched, page.entries.len());
    Ok((page, meta))
}

fn start(core: &Core, kind: &Kind, options: &ListOptions) -> Result<Start, Status> {
    if !options.continue_token.is_empty() {
        let token = Continue::decode(&options.continue_token)?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let after = Some(Key::new(kind.storage, token.namespace, token.name));
        return Ok(Start { at: token.revision, after });
    }
    let unreadable =
        |status: Status| Status::bad_request(format!("invalid resource version: {}", status.message));
    let asked = start_revision(&options.resource_version).map_err(unreadable)?;
    let StartRevision::At(revision) = asked else {
        return Ok(Start { at: None, after: None });
    };
    refuse_future(core, revision)?;
    let exact = match options.version_match {
        Some(version_match) => version_match == VersionMatch::Exact,
        None => options.limit > 0,
    };
    Ok(Start { at: exact.then_some(revision), after: None })
}

/// A state that is yet to come cannot be shown.
pub fn refuse_future(core: &Core, revision: Revision) -> Result<(), Status> {
    let current = core.store.revision();
    if revision <= current {
        return Ok(());
    }
    let message = format!("Too large resource version: {revision}, current: {current}");
    let cause = StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        ..StatusCause::default()
    };
    Err(Status::timeout(message, FUTURE_RETRY_SECONDS).with_details(StatusDetails {
        causes: vec![cause],
        retry_after_seconds: FUTURE_RETRY_SECONDS,
        ..StatusDetails::default()
    }))
}

/// Every object a selection lets through, as of one revision.
pub async fn everything(
    core: &Core,
    kind: &KindRef,
    namespace: &str,
    selection: &Selection,
) -> Result<Page, Status> {
    let (page, _) = page(core, kind, namespace, selection, &Start { at: None, after: None }, 0)
        .map_err(|gone| Status::expired(gone.to_string()))?;
    selected(core, kind, selection, page).await
}

/// Decides about the entries that only their conversion can tell of; those come converted.
async fn selected(
    core: &Core,
    kind: &KindRef,
    selection: &Selection,
    mut page: Page,
) -> Result<Page, Status> {
    if !page.entries.iter().any(|entry| selection.is_open(entry)) {
        return Ok(page);
    }
    let shown = conversion::shown_entries(core, kind, &page.entries).await?.into_owned();
    let pairs = page.entries.iter().zip(shown);
    page.entries = pairs
        .filter(|(stored, shown)| !selection.is_open(stored) || selection.matches_shown(&shown.bytes))
        .map(|(_, shown)| shown)
        .collect();
    Ok(page)
}

/// A page, and how many objects were looked at for it.
fn page(
    core: &Core,
    kind: &Kind,
    namespace: &str,
    selection: &Selection,
    start: &Start,
    limit: usize,
) -> Result<(Page, usize), Gone> {
    let namespace = (kind.resource.namespaced && !namespace.is_empty()).then_some(namespace);
    if let (Some(name), None, None) = (selection.exact_name(), start.at, &start.after)
        && (namespace.is_some() || !kind.resource.namespaced)
    {
        let page = single(core, &Key::new(kind.storage, namespace.unwrap_or_default(), name), selection);
        return Ok((page, 1));
    }
    let fetched = Cell::new(0);
    let after = start.after.as_ref();
    let page = core.store.range(kind.storage, namespace, start.at, after, limit, &|entry| {
        fetched.update(|count| count + 1);
        selection.matches(entry)
    })?;
    Ok((page, fetched.get()))
}

/// The page of a selection that names its only possible object. The revision is read first, so that a watch from it
/// misses nothing.
fn single(core: &Core, key: &Key, selection: &Selection) -> Page {
    let revision = core.store.revision();
    let entry = core.store.get(key).filter(|entry| selection.matches(entry));
    let revision = entry.as_ref().map_or(revision, |entry| revision.max(entry.revision));
    Page { entries: entry.into_iter().collect(), revision, more: false, remaining: None }
}

/// Pages that follow show the state that this one shows, even if it went on without the consistency of those before.
fn list_meta(page: &Page, selection: &Selection) -> ListMeta {
    let last = page.entries.last().filter(|_| page.more);
    let continue_token = last
        .map(|entry| Continue::after(&entry.key.namespace, &entry.key.name, Some(page.revision)).encode());
    ListMeta {
        revision: page.revision,
        continue_token: continue_token.unwrap_or_default(),
        remaining: page.remaining.filter(|_| selection.is_everything()),
    }
}

/// The history no longer reaches the revision; a client that was paging gets a token to go on without consistency.
fn expired(options: &ListOptions) -> Status {
    let Ok(token) = Continue::decode(&options.continue_token) else {
        return Status::expired("The resourceVersion for the provided list is too old.");
    };
    let fresh = Continue { revision: None, ..token }.encode();
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.insert("continue", fresh.into());
    status
}
