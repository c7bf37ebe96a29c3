//! API Priority and Fairness: which requests are worked on now, which wait, and which are refused, so that neither a
//! flood nor a slow request of one user costs others. Follows `WithPriorityAndFairness` and the `configController`.
//!
//! The decisions are pure: `schema` says which flow a request belongs to, `seats` and `queues` who gets a seat. Here they
//! are put behind one lock, which is held for as long as a decision takes, and those that wait are woken.

mod dump;
mod follow;
mod level;
mod metrics;
mod queues;
mod schema;
mod seats;
mod width;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, Value};
use arc_swap::ArcSwap;
use auth::UserInfo;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::Clock;
use crate::request_info::RequestInfo;
use level::LevelConfig;
use metrics::{Counts, Metrics};
use queues::seconds;
use schema::FlowSchema;
use seats::{Arrival, Dispatched, Grant, LevelId, Reason, Seats, Ticket};

pub use follow::start;
pub use schema::level_of;
pub use width::width;

/// A request waits for its seat no longer than this (upstream: a quarter of `--request-timeout`).
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Seconds after which a refused client may try again.
const RETRY_SECONDS: i32 = 1;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A FlowSchema with its level, ready to be used.
struct Rule {
    schema: FlowSchema,
    level: LevelId,
    headers: [(HeaderName, HeaderValue); 2],
    counts: Arc<Counts>,
}

/// Those that take part, in the order in which they are asked.
type Rules = Vec<Arc<Rule>>;

/// The schema and the flow that a request belongs to.
#[derive(Clone)]
pub struct Classified {
    rule: Arc<Rule>,
    flow: u64,
}

/// What one request is about, as long as it waits: for those who look at the queues.
struct Digest {
    info: RequestInfo,
    user: UserInfo,
}

/// Whom to tell that its turn has come.
struct Waiter {
    turn: oneshot::Sender<Seat>,
    rule: Arc<Rule>,
    digest: Digest,
}

struct Shared {
    seats: Mutex<Seats<Waiter>>,
    rules: ArcSwap<Rules>,
    metrics: Metrics,
    hasher: RandomState,
    clock: Clock,
}

#[derive(Clone)]
pub struct FlowControl(Arc<Shared>);

/// The right to be worked on, until it is dropped.
pub struct Seat {
    shared: Arc<Shared>,
    rule: Arc<Rule>,
    grant: Grant,
    is_watch: bool,
}

impl Classified {
    /// Says in the answer who has decided about the request.
    pub fn sign(&self, headers: &mut HeaderMap) {
        headers.extend(self.rule.headers.iter().cloned());
    }
}

impl FlowControl {
    /// With so many seats altogether. Until it is configured everything is let in.
    pub fn new(total: u32, clock: Clock) -> FlowControl {
        FlowControl(Arc::new(Shared {
            seats: Mutex::new(Seats::new(total)),
            rules: ArcSwap::default(),
            metrics: Metrics::default(),
            hasher: RandomState::new(),
            clock,
        }))
    }

    /// Takes these PriorityLevelConfigurations and FlowSchemas for the ones that count.
    pub fn configure(&self, levels: &[Value], schemas: &[Value]) {
        let shared = &self.0;
        let levels: Vec<LevelConfig> = levels.iter().map(LevelConfig::of).collect();
        let mut out = Vec::new();
        let mut seats = shared.seats.lock();
        seats.configure(&levels, shared.now(), &mut out);
        let ready = |object: &Value| {
            let schema = FlowSchema::of(object);
            let level = levels.iter().find(|level| *level.name == *schema.level)?;
            let uid = |uid: &str| HeaderValue::from_str(uid).ok();
            Some(Arc::new(Rule {
                level: seats.id(&level.name)?,
                headers: [(SCHEMA_UID, uid(&schema.uid)?), (LEVEL_UID, uid(&level.uid)?)],
                counts: shared.metrics.counts(&schema.level, &schema.name),
                schema,
            }))
        };
        let mut rules: Rules = schemas.iter().filter_map(ready).collect();
        rules.sort_by(|a, b| a.schema.order().cmp(&b.schema.order()));
        shared.rules.store(Arc::new(rules));
        drop(seats);
        wake(shared, out);
    }

    /// The schema and flow of a request; none while no schema is for it, which the one for everything prevents.
    pub fn classify(&self, info: &RequestInfo, user: &UserInfo) -> Option<Classified> {
        let rules = self.0.rules.load();
        let rule = rules.iter().find(|rule| rule.schema.matches(info, user))?.clone();
        let flow = rule.schema.flow(info, user, &self.0.hasher);
        Some(Classified { rule, flow })
    }

    /// Waits for a seat, if there is none. None when nothing limits the request.
    pub async fn enter(
        &self,
        classified: &Classified,
        info: &RequestInfo,
        user: &UserInfo,
        width: u32,
    ) -> Result<Option<Seat>, Status> {
        let mut current = Some(classified.clone());
        while let Some(classified) = current {
            match self.arrive(&classified, info, user, width) {
                Entry::Seat(seat) => return Ok(Some(seat)),
                Entry::Queue(place) => return place.wait().await.map(Some),
                Entry::Refused => return Err(refused()),
                Entry::Unknown => current = self.classify(info, user),
            }
        }
        Ok(None)
    }

    fn arrive(&self, classified: &Classified, info: &RequestInfo, user: &UserInfo, width: u32) -> Entry {
        let shared = &self.0;
        let Classified { rule, flow } = classified;
        let (mut turn, mut out) = (None, Vec::new());
        let waiter = || {
            let (sender, receiver) = oneshot::channel();
            turn = Some(receiver);
            Waiter {
                turn: sender,
                rule: rule.clone(),
                digest: Digest { info: info.clone(), user: user.clone() },
            }
        };
        let now = shared.now();
        let mut seats = shared.seats.lock();
        let width_max = seats.level(rule.level).and_then(seats::Level::width_max);
        let width = width_max.map_or(width, |max| width.min(max));
        let arrival = seats.arrive(rule.level, *flow, width, waiter, now, &mut out);
        drop(seats);
        rule.counts.estimated(width);
        let entry = match (arrival, turn) {
            (Arrival::Admitted(grant), _) => Entry::Seat(Seat::new(shared, rule, grant, info)),
            (Arrival::Waits(ticket), Some(turn)) => {
                rule.counts.queued();
                let (shared, rule) = (shared.clone(), rule.clone());
                Entry::Queue(Place { shared, rule, ticket: Some(ticket), turn, since: now })
            }
            (Arrival::Refused(reason), _) => {
                rule.counts.rejected(reason, 0.0);
                Entry::Refused
            }
            (Arrival::Unknown | Arrival::Waits(_), _) => Entry::Unknown,
        };
        wake(shared, out);
        entry
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        self.0.metrics.render(&self.0.seats.lock())
    }
}

/// What becomes of a request.
enum Entry {
    Seat(Seat),
    Queue(Place),
    Refused,
    /// Its level went after it was classified.
    Unknown,
}

fn refused() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", RETRY_SECONDS)
}

impl Shared {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// Tells those who waited that they have a seat. It goes on to the next if its owner has gone meanwhile.
fn wake(shared: &Arc<Shared>, dispatched: Dispatched<Waiter>) {
    for (waiter, grant) in dispatched {
        waiter.rule.counts.left_queue();
        let seat = Seat::new(shared, &waiter.rule, grant, &waiter.digest.info);
        if let Err(unwanted) = waiter.turn.send(seat) {
            drop(unwanted);
        }
    }
}

impl Seat {
    fn new(shared: &Arc<Shared>, rule: &Arc<Rule>, grant: Grant, info: &RequestInfo) -> Seat {
        rule.counts.started(&grant, seconds(grant.since, grant.at));
        Seat { shared: shared.clone(), rule: rule.clone(), grant, is_watch: info.verb == "watch" }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (now, mut out) = (self.shared.now(), Vec::new());
        self.rule.counts.ended(&self.grant, self.is_watch, seconds(self.grant.at, now));
        self.shared.seats.lock().leave(&self.grant, now, &mut out);
        wake(&self.shared, out);
    }
}

/// A place in a queue, which is given up when it is dropped.
struct Place {
    shared: Arc<Shared>,
    rule: Arc<Rule>,
    /// None once it has been given up, or led to a seat.
    ticket: Option<Ticket>,
    turn: oneshot::Receiver<Seat>,
    since: Timestamp,
}

impl Place {
    async fn wait(mut self) -> Result<Seat, Status> {
        let turn = match timeout(WAIT_MAX, &mut self.turn).await {
            Ok(turn) => turn,
            Err(_) if self.give_up(Reason::TimeOut) => return Err(refused()),
            // Its turn has come at the last moment.
            Err(_) => (&mut self.turn).await,
        };
        self.ticket = None;
        turn.map_err(|_| refused())
    }

    /// Whether it was still waiting.
    fn give_up(&mut self, reason: Reason) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let (now, mut out) = (self.shared.now(), Vec::new());
        let waiter = self.shared.seats.lock().give_up(ticket, now, &mut out);
        wake(&self.shared, out);
        if waiter.is_some() {
            self.rule.counts.left_queue();
            self.rule.counts.rejected(reason, seconds(self.since, now));
        }
        waiter.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up(Reason::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use futures_util::FutureExt as _;
    use http::Method;

    use super::*;
    use crate::query::Query;

    /// A server with two seats for everybody, and queues of two.
    fn control() -> FlowControl {
        let control = FlowControl::new(2, Arc::new(Timestamp::now));
        let level = json!({"metadata": {"name": "l", "uid": "level"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 1, "queueLengthLimit": 2}}}}});
        let schema = |name: &str, level: &str, precedence: u32| {
            json!({"metadata": {"name": name, "uid": name}, "spec": {
                "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules": [{"verbs": ["*"],
                    "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}})
        };
        control.configure(
            &[level],
            &[schema("late", "l", 9), schema("dangling", "none", 1), schema("s", "l", 5)],
        );
        control
    }

    fn list() -> RequestInfo {
        RequestInfo::parse(&Method::GET, "/api/v1/pods", &Query::default())
    }

    async fn enter(control: &FlowControl, name: &str) -> Result<Option<Seat>, Status> {
        let (info, user) = (list(), UserInfo::new(name, [""; 0]));
        let classified = control.classify(&info, &user).expect("there is a schema for everything");
        control.enter(&classified, &info, &user, 1).await
    }

    async fn seat(control: &FlowControl, name: &str) -> Seat {
        enter(control, name).await.expect("is let in").expect("is limited")
    }

    #[test]
    fn the_first_schema_that_matches_and_does_not_dangle_decides() {
        let control = control();
        let user = UserInfo::new("ann", [""; 0]);
        let mut headers = HeaderMap::new();
        control.classify(&list(), &user).expect("matches").sign(&mut headers);
        assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], "s");
        assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], "level");
        let path = RequestInfo::parse(&Method::GET, "/healthz", &Query::default());
        assert!(control.classify(&path, &user).is_none());
    }

    #[tokio::test]
    async fn who_waits_is_let_in_when_a_seat_is_free_and_who_finds_no_place_is_refused() {
        let control = control();
        let (first, second) = (seat(&control, "ann").await, seat(&control, "ann").await);
        let (mut third, mut fourth) = (Box::pin(enter(&control, "ann")), Box::pin(enter(&control, "ann")));
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        let fifth = enter(&control, "ann").await.err().expect("is refused");
        assert_eq!((fifth.code, fifth.details.map(|details| details.retry_after_seconds)), (429, Some(1)));
        drop(first);
        let third = third.await.expect("is let in");
        drop(fourth);
        drop((second, third));
        let text = control.render();
        for line in [
            "dispatched_requests_total{flow_schema=\"s\",priority_level=\"l\"} 3",
            "current_inqueue_requests{flow_schema=\"s\",priority_level=\"l\"} 0",
            "current_executing_seats{flow_schema=\"s\",priority_level=\"l\"} 0",
            "rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"queue-full\"} 1",
            "rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"cancelled\"} 1",
            "nominal_limit_seats{priority_level=\"l\"} 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let control = control();
        let _seats = (seat(&control, "ann").await, seat(&control, "ann").await);
        assert_eq!(enter(&control, "bob").await.err().map(|status| status.code), Some(429));
        assert!(control.render().contains("reason=\"time-out\"} 1"));
    }

    #[tokio::test]
    async fn a_request_whose_level_has_gone_is_judged_anew() {
        let control = control();
        let (info, user) = (list(), UserInfo::new("ann", [""; 0]));
        let classified = control.classify(&info, &user).expect("matches");
        control.configure(&[], &[]);
        assert!(control.enter(&classified, &info, &user, 1).await.expect("is let in").is_none());
    }
}
