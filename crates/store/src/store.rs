//! The store as its users see it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit::LogEngine;
use crate::config::Config;
use crate::disk::{Directory, Disk};
use crate::entry::{Entry, Revision};
use crate::history::Gone;
use crate::key::Key;
use crate::log::{OpenError, Report};
use crate::over_etcd::{Also, Behind, EtcdConfig, EtcdEngine};
use crate::queue::{CommitError, Expected, Op};
use crate::shared::Shared;
use crate::table::Selection;
use crate::watch::{Scope, Waking, Watch};

/// A handle on an open store. Handles share one store; it closes, after writing what is queued, with the last of them.
#[derive(Clone, Debug)]
pub struct Store {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    engine: Engine,
    report: Report,
}

/// What makes changes durable and puts them into an order.
#[derive(Debug)]
enum Engine {
    Log(LogEngine),
    Etcd(EtcdEngine),
}

/// A part of a list, all of it as of one revision.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    /// The revision the list shows; a watch from here misses nothing.
    pub revision: Revision,
    /// At least one further entry passes the filter.
    pub more: bool,
    /// How many entries follow this page, whether they pass the filter or not. None on the last page.
    pub remaining: Option<usize>,
}

/// How many objects, and about how many bytes they take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub objects: u64,
    pub bytes: u64,
}

/// Numbers for metrics.
#[derive(Clone, Debug)]
pub struct Statistics {
    pub revision: Revision,
    /// Objects by resource.
    pub objects: Vec<(Arc<str>, usize)>,
    pub live_bytes: u64,
    /// Of the log; 0 where etcd has it.
    pub disk_bytes: u64,
    pub history_bytes: usize,
    pub watchers: usize,
}

impl Store {
    /// Opens the store in a directory, replaying its log. A torn tail, left by a crash in the middle of a write that nobody
    /// was promised, is cut and reported; any other damage is an error and leaves the files as they are.
    pub async fn open(config: Config) -> Result<Store, OpenError> {
        tokio::task::spawn_blocking(move || {
            let disk: Arc<dyn Disk> = Arc::new(Directory::open(&config.dir)?);
            Store::open_on(disk, &config)
        })
        .await
        .map_err(|error| OpenError::Io { what: "run the replay", source: io::Error::other(error) })?
    }

    /// Opens the store on any disk. Blocks while it replays.
    pub fn open_on(disk: Arc<dyn Disk>, config: &Config) -> Result<Store, OpenError> {
        let (engine, shared, report) = LogEngine::open(disk, config)?;
        Ok(Store { open: Arc::new(Open { shared, engine: Engine::Log(engine), report }) })
    }

    /// Opens the store over etcd, which others may use at the same time, and reads all that is there.
    pub async fn open_etcd(config: EtcdConfig) -> Result<Store, OpenError> {
        let (engine, shared) = EtcdEngine::open(config).await?;
        let objects = shared.state.read().counts().map(|(_, count)| count).sum();
        let report = Report { objects, ..Report::default() };
        Ok(Store { open: Arc::new(Open { shared, engine: Engine::Etcd(engine), report }) })
    }

    /// What was found on opening.
    pub fn report(&self) -> &Report {
        &self.open.report
    }

    /// The revision of the latest visible change.
    pub fn revision(&self) -> Revision {
        self.open.shared.state.read().revision()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.open.shared.state.read().get(key).cloned()
    }

    /// How many objects a resource has.
    pub fn count(&self, resource: &str) -> usize {
        self.open.shared.state.read().count(resource)
    }

    /// How much a resource takes.
    pub fn size(&self, resource: &str) -> Size {
        self.open.shared.state.read().size(resource)
    }

    /// A page of a resource's objects in the order of their keys, as of `at` or of now. `limit` 0 is no limit; `after` is the
    /// last key of the page before. An `at` past the present is answered as of the present.
    /// `filter` must not call the store.
    pub fn range(
        &self,
        resource: &str,
        namespace: Option<&str>,
        at: Option<Revision>,
        after: Option<&Key>,
        limit: usize,
        filter: &dyn Fn(&Entry) -> bool,
    ) -> Result<Page, Gone> {
        let state = self.open.shared.state.read();
        let selected = state.range(resource, &Selection { namespace, after, limit, filter }, at)?;
        Ok(Page {
            entries: selected.entries,
            revision: at.unwrap_or(state.revision()).min(state.revision()),
            more: selected.more,
            remaining: selected.more.then_some(selected.remaining),
        })
    }

    /// Makes one change, if the object is as expected. Returns once the change is durable and visible to all who read here.
    /// Deleting what is not there is a conflict. Dropping the future does not take the change back.
    pub async fn commit(&self, key: &Key, expected: Expected, op: Op) -> Result<Arc<Entry>, CommitError> {
        self.commit_with(key, expected, op, &[]).await
    }

    /// The same, and `also` what must change together with it: all of it or nothing. Only a store that is shared can do
    /// that, as only there anybody else could come between.
    pub async fn commit_with(
        &self,
        key: &Key,
        expected: Expected,
        op: Op,
        also: &[Also],
    ) -> Result<Arc<Entry>, CommitError> {
        let Open { shared, engine, .. } = &*self.open;
        match engine {
            Engine::Log(log) => {
                assert!(also.is_empty(), "a store of one's own changes one object at a time");
                log.commit(shared, key, expected, op).await
            }
            Engine::Etcd(etcd) => etcd.commit(key, expected, op, also).await,
        }
    }

    /// When what is no object of the store was last written at a path in etcd; 0 if there is nothing. All that was
    /// written before this was called shows then. A store of one's own has nothing but objects.
    pub async fn revision_of(&self, path: &str) -> Result<Revision, CommitError> {
        match &self.open.engine {
            Engine::Log(_) => Ok(Revision(0)),
            Engine::Etcd(etcd) => etcd.revision_of(path).await,
        }
    }

    /// Waits until everything shows here that anybody was told is written before this was called.
    pub async fn caught_up(&self) -> Result<(), Behind> {
        match &self.open.engine {
            // It shows here before anybody is told.
            Engine::Log(_) => Ok(()),
            Engine::Etcd(etcd) => etcd.caught_up().await,
        }
    }

    /// Whether changes made by others reach this store at the moment.
    pub fn is_followed(&self) -> bool {
        match &self.open.engine {
            Engine::Log(_) => true,
            Engine::Etcd(etcd) => etcd.is_followed(),
        }
    }

    /// Whether others write too, and objects that have a time to live go by themselves.
    pub fn is_shared(&self) -> bool {
        matches!(self.open.engine, Engine::Etcd(_))
    }

    /// The changes within `scope` after `from`, which may lie ahead of the present. `Gone` exactly when the history has
    /// dropped a change of the resource that came after `from`.
    pub fn watch(&self, scope: Scope, from: Revision) -> Result<Watch, Gone> {
        self.watch_when(scope, from, Waking::Prompt)
    }

    /// The same, for a watcher who may wait for his turn. Call it within a runtime.
    pub fn watch_when(&self, scope: Scope, from: Revision, waking: Waking) -> Result<Watch, Gone> {
        Watch::new(self.open.shared.clone(), scope, from, waking)
    }

    /// Has everything that lies in another form than the transformer would write now written anew in the background.
    pub fn rewrite(&self) {
        match &self.open.engine {
            Engine::Log(log) => log.ask_rewrite(),
            Engine::Etcd(etcd) => etcd.ask_rewrite(),
        }
    }

    pub fn statistics(&self) -> Statistics {
        let shared = &self.open.shared;
        let watchers = shared.watchers.len();
        let state = shared.state.read();
        Statistics {
            revision: state.revision(),
            objects: state.counts().map(|(resource, count)| (resource.clone(), count)).collect(),
            live_bytes: state.live_bytes(),
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
            history_bytes: state.past_bytes(),
            watchers,
        }
    }
}
