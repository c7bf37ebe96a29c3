//! The engine over etcd, which is the log that several servers share. Memory is fed by one watch over everything under a
//! prefix; a write is a transaction upon the revision that the writer saw, and shows once the watch has brought it.
//!
//! Revisions are etcd's. Keys and values are whatever the [`Codec`] says, so that others can read them. Follows
//! `storage/etcd3` and, for reads that are behind nobody's write, `storage/cacher`.

mod codec;
mod compact;
mod feed;
mod fresh;
mod hub;
mod lease;
mod load;
mod rewrite;
mod values;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd::Client;
use etcd::proto::RangeRequest;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use codec::{Codec, CodecError};
pub use fresh::Behind;
pub use write::Also;

use crate::config::{Clock, Config};
use crate::entry::{Entry, Revision};
use crate::key::Key;
use crate::log::OpenError;
use crate::queue::{CommitError, Expected, Op};
use crate::shared::Shared;
use crate::state::Retention;
use crate::transform::{Identity, Transformer};
use codec::Decoder;
use feed::Feed;
use fresh::Freshness;
use hub::Hub;
use lease::Leases;
use values::Values;

/// Where upstream keeps everything (`--etcd-prefix`).
pub const PREFIX: &str = "/registry";

/// Past changes go from etcd after between once and twice this time (`--etcd-compaction-interval`).
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);

/// How a store over etcd is opened.
#[derive(Clone)]
pub struct EtcdConfig {
    pub servers: etcd::Config,
    /// Everything is kept under this, a path.
    pub prefix: String,
    pub codec: Arc<dyn Codec>,
    /// How values are encrypted.
    pub transformer: Arc<dyn Transformer>,
    /// The most bytes of past changes kept in memory, for watches and for lists at older revisions.
    pub history_bytes_max: usize,
    /// Past changes older than this are dropped with the next write.
    pub history_age_max: Duration,
    /// Zero: others compact.
    pub compaction_interval: Duration,
    pub clock: Clock,
}

impl EtcdConfig {
    pub fn new(servers: etcd::Config, codec: Arc<dyn Codec>) -> EtcdConfig {
        // What the two engines keep in memory is the same.
        let Config { history_bytes_max, history_age_max, clock, .. } = Config::new("");
        EtcdConfig {
            servers,
            prefix: PREFIX.to_owned(),
            codec,
            transformer: Arc::new(Identity),
            history_bytes_max,
            history_age_max,
            compaction_interval: COMPACTION_INTERVAL,
            clock,
        }
    }

    /// The beginning of every key.
    fn key_prefix(&self) -> String {
        format!("/{}/", self.prefix.trim_matches('/'))
    }

    fn retention(&self) -> Retention {
        Retention { bytes_max: self.history_bytes_max, age_max: self.history_age_max }
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig").field("servers", &self.servers.servers).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct EtcdEngine {
    hub: Arc<Hub>,
    fresh: Arc<Freshness>,
    leases: Leases,
    rewrite_asked: Arc<Notify>,
    /// They end with the engine.
    _tasks: JoinSet<()>,
}

impl EtcdEngine {
    /// Reads everything that is there, and follows it from then on.
    pub(crate) async fn open(config: EtcdConfig) -> Result<(EtcdEngine, Arc<Shared>), OpenError> {
        let client = Arc::new(Client::new(&config.servers)?);
        let values = Values::new(&config);
        let mut decoder = Decoder::new(values.clone());
        let state = load::load(&client, &mut decoder, config.retention()).await?;
        let shared = Arc::new(Shared::new(state));
        let hub = Arc::new(Hub::new(client.clone(), shared.clone(), values));
        let fresh = Arc::new(Freshness::default());
        let mut tasks = JoinSet::new();
        let rewrite_asked = Arc::new(Notify::new());
        if decoder.has_seen_stale {
            rewrite_asked.notify_one();
        }
        tasks.spawn(rewrite::run(hub.clone(), rewrite_asked.clone()));
        let feed = Feed::new(hub.clone(), decoder, config.retention(), config.clock.clone());
        tasks.spawn(feed.run());
        tasks.spawn(fresh.clone().run(client.clone()));
        if !config.compaction_interval.is_zero() {
            tasks.spawn(compact::run(client.clone(), config.compaction_interval));
        }
        let leases = Leases::new(client);
        Ok((EtcdEngine { hub, fresh, leases, rewrite_asked, _tasks: tasks }, shared))
    }

    pub(crate) async fn commit(
        &self,
        key: &Key,
        expected: Expected,
        op: Op,
        also: &[Also],
    ) -> Result<Arc<Entry>, CommitError> {
        write::commit(&self.hub, &self.leases, key, expected, &op, also).await
    }

    /// When a path was last written, 0 for never; what was written by now shows.
    pub(crate) async fn revision_of(&self, path: &str) -> Result<Revision, CommitError> {
        let request = RangeRequest { key: self.hub.values.at(path), ..RangeRequest::default() };
        let found =
            self.hub.client.range(request).await.map_err(|error| CommitError::Etcd(Arc::new(error)))?;
        self.hub.shows(hub::revision(found.header.unwrap_or_default().revision)).await?;
        Ok(hub::revision(found.kvs.first().map_or(0, |found| found.mod_revision)))
    }

    /// Has everything sealed anew in the background.
    pub(crate) fn ask_rewrite(&self) {
        self.rewrite_asked.notify_one();
    }

    /// Whether the watch on etcd stands.
    pub(crate) fn is_followed(&self) -> bool {
        self.hub.is_followed()
    }

    /// Waits until everything shows that anybody was told is written before this was called.
    pub(crate) async fn caught_up(&self) -> Result<(), Behind> {
        let newest = self.fresh.newest().await?;
        self.hub.shows(newest).await
    }
}

impl Drop for EtcdEngine {
    fn drop(&mut self) {
        self.hub.shared.close();
    }
}
