//! Candidates for one Lease at a server in memory, under a clock that runs by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::transport::{ResponseFuture, Transport};

/// Keeps one Lease, and tells watchers of each change.
struct Server {
    /// Its number of changes is its version.
    lease: watch::Sender<(u64, Option<Value>)>,
}

impl Server {
    fn new() -> Arc<Server> {
        Arc::new(Server { lease: watch::Sender::new((1, None)) })
    }

    fn write(&self, is_new: bool, mut lease: Value) -> (u16, Value) {
        let mut answer = (409, Value::Null);
        self.lease.send_if_modified(|(version, found)| {
            let expected = found.as_ref().map_or("", |found| str_at(found, &["metadata", "resourceVersion"]));
            if found.is_none() != is_new || expected != str_at(&lease, &["metadata", "resourceVersion"]) {
                return false;
            }
            *version += 1;
            lease["metadata"]["resourceVersion"] = version.to_string().into();
            answer = (200, lease.clone());
            *found = Some(lease.clone());
            true
        });
        answer
    }

    fn watch(&self, path: &str) -> crate::transport::Body {
        let mut changes = self.lease.subscribe();
        if !path.contains(&format!("resourceVersion={}&", changes.borrow_and_update().0)) {
            changes.mark_changed();
        }
        let changes = frames(changes);
        StreamBody::new(changes.map(|frame| Ok(http_body::Frame::data(frame)))).boxed_unsync()
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response<crate::transport::Body> {
        let (version, found) = self.lease.borrow().clone();
        let (code, answer) = match (method, path.contains("events"), path.contains('?')) {
            (_, true, _) => (200, json!({})),
            (&Method::GET, _, true) if path.contains("watch=true") => return Response::new(self.watch(path)),
            (&Method::GET, _, true) => (
                200,
                json!({"metadata": {"resourceVersion": version.to_string()}, "items": found.as_slice()}),
            ),
            (&Method::GET, ..) => found.map_or((404, Value::Null), |found| (200, found)),
            (method, ..) => {
                self.write(method == Method::POST, serde_json::from_slice(body).expect("a Lease"))
            }
        };
        let answer =
            if code < 400 { answer } else { json!({"kind": "Status", "code": code, "reason": reason(code)}) };
        let body = Full::from(answer.to_string()).map_err(|never| match never {}).boxed_unsync();
        Response::builder().status(code).body(body).expect("a response")
    }
}

fn reason(code: u16) -> &'static str {
    if code == 404 { "NotFound" } else { "Conflict" }
}

/// Each change as a frame of a watch.
fn frames(changes: watch::Receiver<(u64, Option<Value>)>) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        let (_, lease) = changes.borrow_and_update().clone();
        let frame = json!({"type": "MODIFIED", "object": lease});
        Some((Bytes::from(format!("{frame}\n")), changes))
    })
}

/// One candidate's way to the server, which can break.
struct Way {
    server: Arc<Server>,
    broken: Arc<AtomicBool>,
}

impl Transport for Way {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            if self.broken.load(Ordering::Relaxed) {
                return Err(Error::Transport("the way is broken".to_owned()));
            }
            let path = request.uri().to_string();
            Ok(self.server.answer(request.method(), &path, request.body()))
        })
    }
}

/// A candidate that says when it works.
struct Candidate {
    stop: CancellationToken,
    broken: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Begins(&'static str),
    Ends(&'static str),
}

/// Candidates, and what they say in its order.
struct Election {
    server: Arc<Server>,
    sender: mpsc::UnboundedSender<(Said, Instant)>,
    said: mpsc::UnboundedReceiver<(Said, Instant)>,
    begun: Instant,
}

impl Election {
    fn new() -> Election {
        let (sender, said) = mpsc::unbounded_channel();
        Election { server: Server::new(), sender, said, begun: Instant::now() }
    }

    fn candidate(&self, identity: &'static str) -> Candidate {
        let (stop, broken) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let client =
            Client::new(Arc::new(Way { server: self.server.clone(), broken: broken.clone() }), "test");
        let config = Config {
            namespace: "kube-system".to_owned(),
            name: "work".to_owned(),
            identity: identity.to_owned(),
            timing: Timing::default(),
        };
        let sender = self.sender.clone();
        let elector = Elector::new(client, "test", config);
        let task = tokio::spawn(elector.run(stop.clone(), move |leading| {
            let sender = sender.clone();
            let say = move |said| sender.send((said, Instant::now())).expect("the test listens");
            async move {
                say(Said::Begins(identity));
                leading.cancelled().await;
                say(Said::Ends(identity));
            }
        }));
        Candidate { stop, broken, task }
    }

    /// The next that is said, and how many seconds after the beginning.
    async fn next(&mut self) -> (Said, u64) {
        let (said, at) = self.said.recv().await.expect("candidates hold the sender");
        (said, (at - self.begun).as_secs())
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_several_leads_and_hands_over_when_it_stops() {
    let mut election = Election::new();
    let a = election.candidate("a");
    assert_eq!(election.next().await, (Said::Begins("a"), 0));
    let b = election.candidate("b");
    // Renewed for as long as it takes: the other keeps waiting.
    tokio::time::sleep(Duration::from_secs(60)).await;
    a.stop.cancel();
    assert_eq!(election.next().await.0, Said::Ends("a"));
    let (said, at) = election.next().await;
    assert_eq!(said, Said::Begins("b"));
    assert!((60..62).contains(&at), "the lead is free at once, not after {at} s");
    a.task.await.expect("ends");
    b.stop.cancel();
    b.task.await.expect("ends");
    let lease = election.server.lease.borrow().1.clone().expect("stays");
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!(""), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_server_stops_before_another_leads() {
    let mut election = Election::new();
    let a = election.candidate("a");
    assert_eq!(election.next().await, (Said::Begins("a"), 0));
    let _b = election.candidate("b");
    a.broken.store(true, Ordering::Relaxed);
    let (said, stopped) = election.next().await;
    assert_eq!(said, Said::Ends("a"));
    let (said, begun) = election.next().await;
    assert_eq!(said, Said::Begins("b"));
    assert!((10..=13).contains(&stopped) && (15..=19).contains(&begun), "{stopped} s, {begun} s");
}

#[tokio::test(start_paused = true)]
async fn who_dies_is_followed_when_its_lease_has_run_out() {
    let mut election = Election::new();
    let a = election.candidate("a");
    assert_eq!(election.next().await, (Said::Begins("a"), 0));
    let _b = election.candidate("b");
    a.task.abort();
    let (said, begun) = election.next().await;
    assert_eq!(said, Said::Begins("b"));
    assert!((14..=17).contains(&begun), "{begun} s");
}

#[tokio::test(start_paused = true)]
async fn a_lead_that_another_took_is_not_taken_back() {
    let mut election = Election::new();
    let _a = election.candidate("a");
    assert_eq!(election.next().await, (Said::Begins("a"), 0));
    let mut lease = election.server.lease.borrow().1.clone().expect("is there");
    lease["spec"]["holderIdentity"] = "thief".into();
    assert_eq!(election.server.write(false, lease).0, 200);
    let (said, stopped) = election.next().await;
    assert_eq!((said, stopped <= 3), (Said::Ends("a"), true));
    let (said, begun) = election.next().await;
    assert_eq!(said, Said::Begins("a"), "the thief does not renew");
    assert!(begun >= 15, "{begun} s");
}

/// A leader that cannot renew and whose work does not end is stuck, and must be seen to be.
#[tokio::test(start_paused = true)]
async fn who_neither_renews_nor_stops_is_not_well() {
    let broken = Arc::new(AtomicBool::new(false));
    let client = Client::new(Arc::new(Way { server: Server::new(), broken: broken.clone() }), "test");
    let timing = Timing::default();
    let (namespace, name, identity) = ("kube-system".to_owned(), "work".to_owned(), "a".to_owned());
    let elector = Elector::new(client, "test", Config { namespace, name, identity, timing });
    let (health, began) = (elector.health(), Arc::new(tokio::sync::Notify::new()));
    let begins = began.clone();
    let task = tokio::spawn(elector.run(CancellationToken::new(), move |_| {
        begins.notify_one();
        std::future::pending()
    }));
    began.notified().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(health.is_well(), "it renews");
    broken.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(health.is_well(), "it may yet stop");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!health.is_well());
    task.abort();
}
