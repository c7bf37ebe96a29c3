//! Seats: how many requests of each priority level are worked on at once, and which of those that wait is next. Pure:
//! the time is an argument, and what waits is whatever the caller hands in.
//!
//! Each level has a nominal number of seats, of which it lends some. Upstream works out every ten seconds who has
//! borrowed how many; here a seat is lent while it is free and comes back when the request on it ends, so that nothing
//! has to be worked out: what is borrowed altogether never exceeds what the lenders leave free.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::level::{LevelConfig, Limits};
use super::queues::{Queues, Queuing, Waiting, seconds};

/// Names a level for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LevelId(u64);

/// The right to be worked on. Must be given back with [`Seats::leave`].
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    level: LevelId,
    queue: Option<usize>,
    width: u32,
    /// When it was given, and to a request that came when.
    pub at: Timestamp,
    pub since: Timestamp,
}

impl Grant {
    pub fn width(&self) -> u32 {
        self.width
    }
}

impl Reason {
    /// Upstream's label.
    pub fn label(self) -> &'static str {
        match self {
            Reason::QueueFull => "queue-full",
            Reason::ConcurrencyLimit => "concurrency-limit",
            Reason::TimeOut => "time-out",
            Reason::Cancelled => "cancelled",
        }
    }
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    level: LevelId,
    queue: usize,
    id: u64,
}

/// Why a request is not worked on (upstream's label `reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

/// What becomes of a request that comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    Admitted(Grant),
    Waits(Ticket),
    Refused(Reason),
    /// Its level is gone: it must be classified again.
    Unknown,
}

/// Those whose turn has come, with what they waited for.
pub type Dispatched<W> = Vec<(W, Grant)>;

#[derive(Debug)]
pub struct Level<W> {
    pub name: Arc<str>,
    config: LevelConfig,
    pub limits: Limits,
    /// Seats in use, and requests that use them.
    pub in_use: u32,
    pub running: u32,
    /// None where nothing waits.
    pub queues: Option<Queues<W>>,
    /// Its object is gone; it goes when its last request does.
    pub quiescing: bool,
}

#[derive(Debug)]
pub struct Seats<W> {
    /// Of all levels together.
    total: u32,
    levels: BTreeMap<LevelId, Level<W>>,
    /// Seats in use beyond the nominal ones of their levels.
    borrowed: u32,
    /// Seats that their levels would lend and leave free.
    offered: u32,
    waiting: usize,
    next_id: u64,
}

impl<W> Level<W> {
    fn waiting(&self) -> usize {
        self.queues.as_ref().map_or(0, Queues::waiting)
    }

    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting() == 0
    }

    /// What the level would have borrowed and would offer with so many seats in use.
    fn exchange(&self, in_use: u32) -> (u32, u32) {
        let borrowed = if self.limits.exempt { 0 } else { in_use.saturating_sub(self.limits.nominal) };
        (borrowed, self.limits.nominal.saturating_sub(in_use).min(self.limits.lendable))
    }

    /// The most seats that one list takes; none where nothing says.
    pub fn width_max(&self) -> Option<u32> {
        self.config.width_max(&self.limits)
    }

    /// Seats that are always its own.
    pub fn lower_limit(&self) -> u32 {
        self.limits.nominal - self.limits.lendable
    }

    /// No request takes more than its level could ever give.
    fn width(&self, wanted: u32) -> u32 {
        if self.limits.exempt { wanted } else { wanted.min(self.limits.nominal).max(1) }
    }
}

impl<W> Seats<W> {
    pub fn new(total: u32) -> Seats<W> {
        Seats { total, levels: BTreeMap::new(), borrowed: 0, offered: 0, waiting: 0, next_id: 0 }
    }

    /// Makes the levels be these. One that is gone stays until its requests are done.
    pub fn configure(&mut self, wanted: &[LevelConfig], now: Timestamp, out: &mut Dispatched<W>) {
        for level in self.levels.values_mut() {
            level.quiescing = true;
        }
        for config in wanted {
            let known = self.levels.values_mut().find(|level| level.name == config.name);
            match known {
                Some(level) => level.reconfigure(config, now),
                None => {
                    let id = LevelId(self.new_id());
                    self.levels.insert(id, Level::new(config, now));
                }
            }
        }
        self.levels.retain(|_, level| !(level.quiescing && level.is_idle()));
        let shares = self.levels.values().map(|level| u64::from(level.config.shares)).sum();
        for level in self.levels.values_mut() {
            level.limits = level.config.limits(self.total, shares);
        }
        let exchanges = self.levels.values().map(|level| level.exchange(level.in_use));
        (self.borrowed, self.offered) = exchanges.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        self.dispatch(now, out);
    }

    pub fn id(&self, name: &str) -> Option<LevelId> {
        let (id, _) = self.levels.iter().find(|(_, level)| *level.name == *name)?;
        Some(*id)
    }

    pub fn level(&self, id: LevelId) -> Option<&Level<W>> {
        self.levels.get(&id)
    }

    pub fn levels(&self) -> impl Iterator<Item = &Level<W>> {
        self.levels.values()
    }

    /// A request of a flow comes and wants so many seats. `waiter` is made only if it has to wait.
    pub fn arrive(
        &mut self,
        id: LevelId,
        flow: u64,
        width: u32,
        waiter: impl FnOnce() -> W,
        now: Timestamp,
        out: &mut Dispatched<W>,
    ) -> Arrival {
        let Some(level) = self.levels.get(&id) else { return Arrival::Unknown };
        let width = level.width(width);
        let fits = self.fits(level, width);
        let waits = level.waiting() > 0;
        let level = self.levels.get_mut(&id).expect("was there a moment ago");
        let Some(queues) = &mut level.queues else {
            return if fits {
                Arrival::Admitted(self.seat(id, None, width, now, now))
            } else {
                Arrival::Refused(Reason::ConcurrencyLimit)
            };
        };
        queues.advance(level.limits.max, now);
        let queue = queues.choose(flow);
        if fits && !waits {
            queues.start(queue, width);
            return Arrival::Admitted(self.seat(id, Some(queue), width, now, now));
        }
        if queues.is_full(queue) {
            let queues = level.config.queuing.is_some();
            return Arrival::Refused(if queues { Reason::QueueFull } else { Reason::ConcurrencyLimit });
        }
        let ticket = Ticket { level: id, queue, id: self.next_id };
        queues.enqueue(queue, Waiting { id: ticket.id, width, since: now, waiter: waiter() });
        self.next_id += 1;
        self.waiting += 1;
        self.dispatch(now, out);
        Arrival::Waits(ticket)
    }

    /// A request has ended.
    pub fn leave(&mut self, grant: &Grant, now: Timestamp, out: &mut Dispatched<W>) {
        let level = self.levels.get_mut(&grant.level).expect("a level stays while its requests run");
        if let (Some(queues), Some(queue)) = (&mut level.queues, grant.queue) {
            queues.advance(level.limits.max, now);
            queues.finish(queue, grant.width, seconds(grant.at, now));
        }
        level.running -= 1;
        let in_use = level.in_use - grant.width;
        self.set_in_use(grant.level, in_use);
        self.dispatch(now, out);
        self.drop_if_done(grant.level);
    }

    /// A request does not want to wait any more. None when it does not wait: it has been dispatched.
    pub fn give_up(&mut self, ticket: Ticket, now: Timestamp, out: &mut Dispatched<W>) -> Option<W> {
        let level = self.levels.get_mut(&ticket.level)?;
        let queues = level.queues.as_mut()?;
        queues.advance(level.limits.max, now);
        let request = queues.remove(ticket.queue, ticket.id)?;
        self.waiting -= 1;
        // It may have been the one that was too wide and so stood in the way of others.
        self.dispatch(now, out);
        self.drop_if_done(ticket.level);
        Some(request.waiter)
    }

    /// Lets those whose turn it is take what is free. Among levels that have the same right to a seat the one that
    /// uses the least of its own is first.
    fn dispatch(&mut self, now: Timestamp, out: &mut Dispatched<W>) {
        while self.waiting > 0 {
            let heads = self.levels.iter().filter_map(|(id, level)| {
                let (queue, head) = level.queues.as_ref()?.next()?;
                let used = f64::from(level.in_use) / f64::from(level.limits.nominal.max(1));
                // The level may have become smaller since it came.
                let width = level.width(head.width);
                self.fits(level, width).then_some((*id, queue, width, used))
            });
            let Some((id, queue, width, _)) = heads.min_by(|a, b| a.3.total_cmp(&b.3)) else { return };
            let level = self.levels.get_mut(&id).expect("was found there");
            let queues = level.queues.as_mut().expect("was found in a queue");
            queues.advance(level.limits.max, now);
            let request = queues.dispatch(queue, width).expect("was found at the head");
            self.waiting -= 1;
            let grant = self.seat(id, Some(queue), width, request.since, now);
            out.push((request.waiter, grant));
        }
    }

    /// Whether the level may use so many more seats: it has them, or somebody who does not need them lends them.
    fn fits(&self, level: &Level<W>, width: u32) -> bool {
        if level.limits.exempt {
            return true;
        }
        let after = level.in_use + width;
        if after > level.limits.max {
            return false;
        }
        let (was_borrowed, was_offered) = level.exchange(level.in_use);
        let (borrowed, offered) = level.exchange(after);
        let touches_none = (was_borrowed, was_offered) == (borrowed, offered);
        touches_none || self.borrowed - was_borrowed + borrowed <= self.offered - was_offered + offered
    }

    fn seat(
        &mut self,
        id: LevelId,
        queue: Option<usize>,
        width: u32,
        since: Timestamp,
        at: Timestamp,
    ) -> Grant {
        let level = self.levels.get_mut(&id).expect("seats are given by levels that are there");
        level.running += 1;
        let in_use = level.in_use + width;
        self.set_in_use(id, in_use);
        Grant { level: id, queue, width, at, since }
    }

    fn set_in_use(&mut self, id: LevelId, in_use: u32) {
        let level = self.levels.get_mut(&id).expect("seats are used of levels that are there");
        let (was_borrowed, was_offered) = level.exchange(level.in_use);
        level.in_use = in_use;
        let (borrowed, offered) = level.exchange(in_use);
        self.borrowed = self.borrowed - was_borrowed + borrowed;
        self.offered = self.offered - was_offered + offered;
    }

    fn drop_if_done(&mut self, id: LevelId) {
        let Some(level) = self.levels.get(&id).filter(|level| level.quiescing && level.is_idle()) else {
            return;
        };
        let (borrowed, offered) = level.exchange(0);
        self.borrowed -= borrowed;
        self.offered -= offered;
        self.levels.remove(&id);
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl<W> Level<W> {
    fn new(config: &LevelConfig, now: Timestamp) -> Level<W> {
        Level {
            name: config.name.clone(),
            config: config.clone(),
            limits: Limits::default(),
            in_use: 0,
            running: 0,
            queues: config.queuing.map(|queuing| Queues::new(queuing, now)),
            quiescing: false,
        }
    }

    /// A level that no longer queues keeps its queues, one of each, until they are empty.
    fn reconfigure(&mut self, config: &LevelConfig, now: Timestamp) {
        self.config = config.clone();
        self.quiescing = false;
        match (&mut self.queues, config.queuing) {
            (Some(queues), Some(queuing)) => queues.configure(queuing),
            (queues @ None, Some(queuing)) => *queues = Some(Queues::new(queuing, now)),
            (Some(queues), None) => queues.configure(Queuing::CLOSED),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
