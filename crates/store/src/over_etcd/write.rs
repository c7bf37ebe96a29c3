//! One write: a transaction upon the revision that the writer saw, then the wait until it shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::Answer;
use etcd::proto::{Compare, KeyValue, RequestOp, TxnRequest, TxnResponse};

use super::hub::{Hub, number, revision};
use super::lease::Leases;
use super::values::Values;
use crate::beside::Beside;
use crate::entry::{Draft, Entry, Revision};
use crate::key::Key;
use crate::queue::{CommitError, Expected, OBJECT_BYTES_MAX, Op};

/// What must change together with an object, or not at all.
#[derive(Clone, Debug)]
pub enum Also {
    /// An object that is not there yet is made.
    Create(Key, Draft),
    /// An object goes, if it is there.
    Remove(Key),
    /// What is no object gets a new value at its path, if it was last written at this revision; 0 is never.
    Replace { path: String, seen: Revision, value: Bytes },
}

/// What is asked of etcd.
struct Request {
    key: Bytes,
    expected: Expected,
    /// None deletes.
    value: Option<Bytes>,
    ttl: Option<Duration>,
    /// What else must be so, and changes then.
    conditions: Vec<Compare>,
    changes: Vec<RequestOp>,
}

/// What etcd did.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The change is made, at this revision.
    Made(Revision),
    /// The object was not as expected, at this revision.
    Conflict(Revision),
    /// The object was, but what was to change with it was not.
    Overtaken(Revision),
}

pub(crate) async fn commit(
    hub: &Hub,
    leases: &Leases,
    key: &Key,
    expected: Expected,
    op: &Op,
    also: &[Also],
) -> Result<Arc<Entry>, CommitError> {
    let request = request(hub, key, expected, op, also)?;
    match send(hub, leases, &request).await? {
        Outcome::Made(at) => {
            if let Err(error) = hub.shows(at).await {
                // It is durable, and so it is acknowledged; reads wait for it themselves.
                tracing::warn!(%key, %error, "a write is made but does not show yet");
            }
            Ok(made(hub, key, at, op))
        }
        Outcome::Overtaken(at) => {
            hub.shows(at).await?;
            Err(CommitError::Overtaken)
        }
        Outcome::Conflict(at) => {
            hub.shows(at).await?;
            Err(CommitError::Conflict { current: hub.shared.state.read().get(key).cloned() })
        }
    }
}

fn request(hub: &Hub, key: &Key, expected: Expected, op: &Op, also: &[Also]) -> Result<Request, CommitError> {
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
    let mut request = Request {
        key: hub.values.key_of(key),
        expected,
        value,
        ttl: hub.values.codec.ttl(key),
        conditions: Vec::new(),
        changes: Vec::new(),
    };
    for also in also {
        request.add(&hub.values, also)?;
    }
    Ok(request)
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
    fn add(&mut self, values: &Values, also: &Also) -> Result<(), CommitError> {
        let mut put = |key: Bytes, seen: Revision, value: Bytes| {
            self.conditions.push(Compare::mod_revision_is(key.clone(), number(seen)));
            self.changes.push(RequestOp::put(key, value, 0));
        };
        match also {
            Also::Create(key, draft) => put(values.key_of(key), Revision(0), values.encode(key, draft)?),
            Also::Replace { path, seen, value } => put(values.at(path), *seen, value.clone()),
            Also::Remove(key) => self.changes.push(RequestOp::delete(values.key_of(key))),
        }
        Ok(())
    }

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
        compare.extend(self.conditions.iter().cloned());
        let success = std::iter::once(change).chain(self.changes.iter().cloned()).collect();
        TxnRequest { compare, success, failure: vec![RequestOp::get(key())] }
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
            (_, found) if self.is_as_expected(found) => Outcome::Overtaken(now),
            _ => Outcome::Conflict(now),
        }
    }

    fn is_as_expected(&self, found: Option<&KeyValue>) -> bool {
        match self.expected {
            Expected::Absent => self.value.is_some() && found.is_none(),
            Expected::At(revision) => found.is_some_and(|found| found.mod_revision == number(revision)),
            Expected::Any => self.value.is_some() || found.is_some(),
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
        beside: Beside::default(),
    })
}

#[cfg(test)]
mod tests {
    use etcd::proto::{RangeResponse, ResponseHeader, ResponseOp, response_op};

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
        let request = Request {
            key: "k".into(),
            expected,
            value,
            ttl: None,
            conditions: Vec::new(),
            changes: Vec::new(),
        };
        assert_eq!(request.judge(&answer), expect, "{answer:?}");
    }

    #[test]
    fn a_write_that_was_heard_the_first_time_is_no_conflict() {
        let (made, conflict) = (|n| Outcome::Made(Revision(n)), || Outcome::Conflict(Revision(9)));
        check(Some("new"), answer(false, true, None), made(9));
        check(Some("new"), answer(false, false, Some(("new", 7))), conflict());
        check(Some("new"), answer(true, false, Some(("new", 7))), made(7));
        check(Some("new"), answer(true, false, Some(("new", 3))), conflict());
        check(Some("new"), answer(true, false, Some(("other", 7))), conflict());
        check(Some("new"), answer(true, false, None), conflict());
        check(None, answer(true, false, None), made(9));
        check(None, answer(false, false, None), conflict());
        check(None, answer(true, false, Some(("other", 7))), conflict());
    }

    #[test]
    fn an_object_that_is_as_expected_is_not_what_was_in_the_way() {
        check(Some("new"), answer(false, false, Some(("old", 4))), Outcome::Overtaken(Revision(9)));
        check(None, answer(false, false, Some(("old", 4))), Outcome::Overtaken(Revision(9)));
    }
}
