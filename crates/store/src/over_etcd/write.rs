//! One write: a transaction upon the revision that the writer saw, then the wait until it shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::Answer;
use etcd::proto::{Compare, RequestOp, TxnRequest, TxnResponse};

use super::hub::{Hub, number, revision};
use super::lease::Leases;
use crate::entry::{Entry, Revision};
use crate::key::Key;
use crate::queue::{CommitError, Expected, OBJECT_BYTES_MAX, Op};

/// What is asked of etcd.
struct Request {
    key: Bytes,
    expected: Expected,
    /// None deletes.
    value: Option<Bytes>,
    ttl: Option<Duration>,
}

/// What etcd did.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The change is made, at this revision.
    Made(Revision),
    /// The object was not as expected, at this revision.
    Conflict(Revision),
}

pub(crate) async fn commit(
    hub: &Hub,
    leases: &Leases,
    key: &Key,
    expected: Expected,
    op: &Op,
) -> Result<Arc<Entry>, CommitError> {
    let request = request(hub, key, expected, op)?;
    match send(hub, leases, &request).await? {
        Outcome::Made(at) => {
            if let Err(error) = hub.shows(at).await {
                // It is durable, and so it is acknowledged; reads wait for it themselves.
                tracing::warn!(%key, %error, "a write is made but does not show yet");
            }
            Ok(made(hub, key, at, op))
        }
        Outcome::Conflict(at) => {
            hub.shows(at).await?;
            Err(CommitError::Conflict { current: hub.shared.state.read().get(key).cloned() })
        }
    }
}

fn request(hub: &Hub, key: &Key, expected: Expected, op: &Op) -> Result<Request, CommitError> {
    let value = match op {
        Op::Delete(_) => None,
        Op::Put(draft) => {
            let bytes = draft.json.len();
            if bytes > OBJECT_BYTES_MAX {
                return Err(CommitError::TooLarge { bytes });
            }
            Some(hub.values.encode(key, draft)?)
        }
    };
    Ok(Request { key: hub.values.key_of(key), expected, value, ttl: hub.values.codec.ttl(key) })
}

async fn send(hub: &Hub, leases: &Leases, request: &Request) -> Result<Outcome, CommitError> {
    let mut renewed = false;
    loop {
        let lease = match request.ttl.filter(|_| request.value.is_some()) {
            Some(ttl) => leases.get(ttl).await.map_err(failed)?,
            None => 0,
        };
        match (hub.client.txn(request.transaction(lease)).await, request.ttl) {
            (Ok(answer), _) => return Ok(request.judge(&answer)),
            (Err(error), Some(ttl)) if error.is_lease_not_found() && !renewed => {
                leases.forget(ttl).await;
                renewed = true;
            }
            (Err(error), _) if error.is_too_large() => {
                return Err(CommitError::TooLarge { bytes: request.value.as_ref().map_or(0, Bytes::len) });
            }
            (Err(error), _) => return Err(failed(error)),
        }
    }
}

fn failed(error: etcd::Error) -> CommitError {
    CommitError::Etcd(Arc::new(error))
}

impl Request {
    fn transaction(&self, lease: i64) -> TxnRequest {
        let key = || self.key.clone();
        let mut compare = match self.expected {
            Expected::Absent => vec![Compare::mod_revision_is(key(), 0)],
            Expected::At(revision) => vec![Compare::mod_revision_is(key(), number(revision))],
            Expected::Any => Vec::new(),
        };
        if self.value.is_none() {
            // To delete what is not there is a conflict, even for who expects just that.
            compare.push(Compare::exists(key()));
        }
        let change = match &self.value {
            Some(value) => RequestOp::put(key(), value.clone(), lease),
            None => RequestOp::delete(key()),
        };
        TxnRequest { compare, success: vec![change], failure: vec![RequestOp::get(key())] }
    }

    /// A transaction that was sent twice finds its own doing in its way, if the first one was heard.
    fn judge(&self, answer: &Answer<TxnResponse>) -> Outcome {
        let now = revision(answer.response.header.unwrap_or_default().revision);
        if answer.response.succeeded {
            return Outcome::Made(now);
        }
        let found = answer.response.found();
        let seen = match self.expected {
            Expected::At(revision) => number(revision),
            Expected::Absent | Expected::Any => 0,
        };
        match (&self.value, found) {
            (Some(value), Some(found))
                if answer.repeated && found.value == *value && found.mod_revision > seen =>
            {
                Outcome::Made(revision(found.mod_revision))
            }
            (None, None) if answer.repeated => Outcome::Made(now),
            _ => Outcome::Conflict(now),
        }
    }
}

/// What was written, as it shows or, if it is changed again already, as it was handed in.
fn made(hub: &Hub, key: &Key, at: Revision, op: &Op) -> Arc<Entry> {
    let shown = hub.shared.state.read().get(key).cloned();
    if let Some(shown) = shown.as_ref().filter(|shown| shown.revision == at) {
        return shown.clone();
    }
    let draft = op.draft();
    Arc::new(Entry {
        key: key.clone(),
        revision: at,
        created: shown.map_or(at, |shown| shown.created.min(at)),
        bytes: draft.finish(at),
        meta: draft.meta.clone(),
    })
}

#[cfg(test)]
mod tests {
    use etcd::proto::{KeyValue, RangeResponse, ResponseHeader, ResponseOp, response_op};

    use super::*;

    fn answer(repeated: bool, succeeded: bool, found: Option<(&'static str, i64)>) -> Answer<TxnResponse> {
        let kvs = found.map(|(value, mod_revision)| KeyValue {
            value: value.into(),
            mod_revision,
            ..KeyValue::default()
        });
        let range = RangeResponse { kvs: kvs.into_iter().collect(), ..RangeResponse::default() };
        let op = ResponseOp { response: Some(response_op::Response::ResponseRange(range)) };
        let header = Some(ResponseHeader { revision: 9 });
        Answer { response: TxnResponse { header, succeeded, responses: vec![op] }, repeated }
    }

    fn check(value: Option<&'static str>, answer: Answer<TxnResponse>, expect: Outcome) {
        let expected = Expected::At(Revision(4));
        let value = value.map(Bytes::from);
        let request = Request { key: "k".into(), expected, value, ttl: None };
        assert_eq!(request.judge(&answer), expect, "{answer:?}");
    }

    #[test]
    fn a_write_that_was_heard_the_first_time_is_no_conflict() {
        let (made, conflict) = (|n| Outcome::Made(Revision(n)), || Outcome::Conflict(Revision(9)));
        check(Some("new"), answer(false, true, None), made(9));
        check(Some("new"), answer(false, false, Some(("new", 7))), conflict());
        check(Some("new"), answer(true, false, Some(("new", 7))), made(7));
        check(Some("new"), answer(true, false, Some(("new", 4))), conflict());
        check(Some("new"), answer(true, false, Some(("other", 7))), conflict());
        check(Some("new"), answer(true, false, None), conflict());
        check(None, answer(true, false, None), made(9));
        check(None, answer(false, false, None), conflict());
        check(None, answer(true, false, Some(("other", 7))), conflict());
    }
}
