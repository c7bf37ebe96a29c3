//! Requests, at whichever member answers.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::config::{Config, ConfigError};
use crate::error::{Error, is_transient};
use crate::proto::kv_client::KvClient;
use crate::proto::lease_client::LeaseClient;
use crate::proto::maintenance_client::MaintenanceClient;
use crate::proto::{
    CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, RangeRequest, RangeResponse, StatusRequest,
    TxnRequest, TxnResponse,
};
use crate::version::Version;
use crate::watch::Watch;

/// How long one member may take over one request. Longer than an election, which takes a second or two.
const ATTEMPT_MAX: Duration = Duration::from_secs(4);

/// How long a request is tried at one member after the other (upstream's clients give up after a minute at most).
const REQUEST_MAX: Duration = Duration::from_secs(15);

/// Members that refuse at once are asked again after this time.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// An answer is as large as the values in it (etcd's own client sets the same bound).
pub(crate) const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// Makes a member without a leader refuse, so that another can be asked.
const HAS_LEADER: (&str, &str) = ("hasleader", "true");

/// A way to a cluster. Connections are made when first used, and again when they break.
pub struct Client {
    members: Vec<Member>,
    /// Which member is asked first: the one that answered last.
    preferred: AtomicUsize,
}

struct Member {
    url: String,
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.url)).finish()
    }
}

/// An answer, and whether the question may have been heard before: when a member did not answer, and another was asked.
#[derive(Debug)]
pub struct Answer<T> {
    pub response: T,
    pub repeated: bool,
}

impl Client {
    /// Must be called within a tokio runtime.
    pub fn new(config: &Config) -> Result<Client, ConfigError> {
        let endpoints = config.endpoints()?.into_iter();
        let members = endpoints
            .map(|endpoint| Member { url: endpoint.uri().to_string(), channel: endpoint.connect_lazy() });
        Ok(Client { members: members.collect(), preferred: AtomicUsize::new(0) })
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let answer = self.ask(|channel| {
            let request = marked(request.clone());
            async move { kv(channel).range(request).await }
        });
        Ok(answer.await?.response)
    }

    /// The revision of the newest change that anybody was told is made.
    pub async fn revision(&self) -> Result<i64, Error> {
        // A range without keys: only its header is wanted. Such a read is agreed upon by the members.
        let request = RangeRequest { key: crate::keys::FIRST, count_only: true, ..RangeRequest::default() };
        Ok(self.range(request).await?.header.unwrap_or_default().revision)
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<Answer<TxnResponse>, Error> {
        self.ask(|channel| {
            let request = marked(request.clone());
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    /// Forgets changes before `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        let compacted = self.ask(|channel| {
            let request = marked(CompactionRequest { revision });
            async move { kv(channel).compact(request).await }
        });
        match compacted.await {
            Err(error) if error.is_compacted() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    pub async fn lease(&self, ttl: Duration) -> Result<LeaseGrantResponse, Error> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let answer = self.ask(|channel| {
            let request = marked(LeaseGrantRequest { ttl: seconds, id: 0 });
            async move { LeaseClient::new(channel).lease_grant(request).await }
        });
        Ok(answer.await?.response)
    }

    /// Tells of the changes in a range from a revision on, as one member sees them. The range is chosen by what that member
    /// is.
    pub async fn watch(
        &self,
        from: i64,
        range: impl Fn(Version) -> (bytes::Bytes, bytes::Bytes),
    ) -> Result<Watch, Error> {
        let answer = self.ask(|channel| {
            let range = &range;
            async move {
                let status = MaintenanceClient::new(channel.clone()).status(marked(StatusRequest {})).await?;
                let version = status.get_ref().version.parse().unwrap_or(Version(0, 0, 0));
                let watch = Watch::start(channel, range(version), from, version).await?;
                Ok(Response::new(watch))
            }
        });
        Ok(answer.await?.response)
    }

    /// Asks another member first from now on.
    pub fn turn_away(&self) {
        self.turn_away_from(self.preferred.load(Ordering::Relaxed));
    }

    fn turn_away_from(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        // Whoever else has turned away already is not to be turned back.
        self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Asks one member after the other, until one answers or time is up.
    async fn ask<T, F>(&self, request: impl Fn(Channel) -> F) -> Result<Answer<T>, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + REQUEST_MAX;
        let mut repeated = false;
        loop {
            let member = self.preferred.load(Ordering::Relaxed);
            let asked = request(self.members[member].channel.clone());
            let answer = timeout(ATTEMPT_MAX, asked).await;
            let status = match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
                Ok(response) => return Ok(Answer { response: response.into_inner(), repeated }),
                Err(status) if is_transient(&status) => status,
                Err(status) => return Err(Error::Refused(status)),
            };
            tracing::debug!(member = self.members[member].url, %status, "a member of etcd does not answer");
            self.turn_away_from(member);
            if Instant::now() >= deadline {
                return Err(Error::Unreachable { within: REQUEST_MAX, last: status });
            }
            repeated = true;
            sleep(RETRY_DELAY).await;
        }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A request that only a member with a leader takes.
pub(crate) fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let (key, value) = HAS_LEADER;
    request.metadata_mut().insert(key, tonic::metadata::MetadataValue::from_static(value));
    request
}
