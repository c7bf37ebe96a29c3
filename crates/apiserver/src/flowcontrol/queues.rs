//! The fair queues of one priority level: which queue a request waits in, and whose turn it is. Pure: what waits is
//! whatever the caller hands in, and the time is an argument. Follows `queueset` and `shufflesharding`: fair queuing
//! for servers, by the virtual time at which each queue's next request would end if all queues were served at once.

use std::collections::VecDeque;

use jiff::Timestamp;

/// What a request is thought to take before it is known, in seconds (upstream: `estimatedServiceDuration`).
const ESTIMATED_SECONDS: f64 = 0.003;

/// The most queues that a hand has: more would not fit the bits that deal them, which validation has seen to.
const HAND_MAX: usize = 32;

/// How a level queues what finds no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_limit: usize,
}

impl Queuing {
    /// Takes nobody in.
    pub const CLOSED: Queuing = Queuing { queues: 1, hand_size: 1, queue_length_limit: 0 };
}

/// A request that waits.
#[derive(Debug)]
pub struct Waiting<W> {
    /// Names it until it is dispatched.
    pub id: u64,
    pub width: u32,
    pub since: Timestamp,
    pub waiter: W,
}

#[derive(Debug)]
pub struct Queue<W> {
    pub waiting: VecDeque<Waiting<W>>,
    /// Of those that wait, and of those that run.
    pub seats_waiting: u32,
    pub seats_running: u32,
    pub running: u32,
    /// The virtual time from which the next request is served.
    pub next_dispatch: f64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Queue { waiting: VecDeque::new(), seats_waiting: 0, seats_running: 0, running: 0, next_dispatch: 0.0 }
    }
}

impl<W> Queue<W> {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    fn seats(&self) -> u32 {
        self.seats_waiting + self.seats_running
    }

    /// What those that wait are thought to need, in seats times seconds.
    pub fn work_waiting(&self) -> f64 {
        f64::from(self.seats_waiting) * ESTIMATED_SECONDS
    }

    fn run(&mut self, width: u32) {
        self.running += 1;
        self.seats_running += width;
        self.next_dispatch += f64::from(width) * ESTIMATED_SECONDS;
    }
}

#[derive(Debug)]
pub struct Queues<W> {
    config: Queuing,
    /// At least as many as configured; more while those that are too many drain.
    queues: Vec<Queue<W>>,
    /// Of all queues together.
    waiting: usize,
    seats: u32,
    active: u32,
    /// The virtual time, in seats times seconds that each active queue has been given.
    progress: f64,
    updated: Timestamp,
    /// Where the search for the next queue begins, so that none is preferred among equals.
    turn: usize,
}

impl<W> Queues<W> {
    pub fn new(config: Queuing, now: Timestamp) -> Queues<W> {
        let mut queues = Queues {
            config,
            queues: Vec::new(),
            waiting: 0,
            seats: 0,
            active: 0,
            progress: 0.0,
            updated: now,
            turn: 0,
        };
        queues.configure(config);
        queues
    }

    /// New requests go by the new configuration; those that wait stay where they are.
    pub fn configure(&mut self, config: Queuing) {
        self.config = config;
        self.queues.resize_with(self.queues.len().max(config.queues), Queue::default);
        self.drop_superfluous();
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn all(&self) -> &[Queue<W>] {
        &self.queues
    }

    /// Lets the virtual time pass: each active queue gets its part of the seats that are used, or could be.
    pub fn advance(&mut self, capacity: u32, now: Timestamp) {
        if self.active > 0 {
            let seats = f64::from(self.seats.min(capacity));
            self.progress += seconds(self.updated, now) * seats / f64::from(self.active);
        }
        self.updated = now;
    }

    /// The queue for a request of this flow: of the hand that the flow is dealt the one with least to do.
    pub fn choose(&self, flow: u64) -> usize {
        let hand = deal(flow, self.config.queues, self.config.hand_size);
        hand.min_by_key(|index| self.queues[*index].seats()).unwrap_or_default()
    }

    pub fn is_full(&self, queue: usize) -> bool {
        self.queues[queue].waiting.len() >= self.config.queue_length_limit
    }

    pub fn enqueue(&mut self, queue: usize, request: Waiting<W>) {
        self.wake(queue);
        let width = request.width;
        let queue = &mut self.queues[queue];
        queue.seats_waiting += width;
        queue.waiting.push_back(request);
        self.seats += width;
        self.waiting += 1;
    }

    /// A request of this queue begins to run, without having waited.
    pub fn start(&mut self, queue: usize, width: u32) {
        self.wake(queue);
        self.queues[queue].run(width);
        self.seats += width;
    }

    /// The queue whose turn it is: that whose first request would end first.
    pub fn next(&self) -> Option<(usize, &Waiting<W>)> {
        let count = self.queues.len();
        let order = (0..count).map(|offset| (self.turn + offset) % count);
        let heads = order.filter_map(|index| Some((index, self.queues[index].waiting.front()?)));
        let end = |(index, head): &(usize, &Waiting<W>)| {
            self.queues[*index].next_dispatch + f64::from(head.width) * ESTIMATED_SECONDS
        };
        heads.min_by(|a, b| end(a).total_cmp(&end(b)))
    }

    /// Takes the first request of this queue out, to run on so many seats.
    pub fn dispatch(&mut self, queue: usize, width: u32) -> Option<Waiting<W>> {
        let chosen = &mut self.queues[queue];
        let request = chosen.waiting.pop_front()?;
        chosen.seats_waiting -= request.width;
        chosen.run(width);
        self.seats = self.seats - request.width + width;
        self.waiting -= 1;
        self.turn = (queue + 1) % self.queues.len();
        Some(request)
    }

    /// A request of this queue has ended after so many seconds.
    pub fn finish(&mut self, queue: usize, width: u32, took: f64) {
        let progress = self.progress;
        let ended = &mut self.queues[queue];
        ended.running -= 1;
        ended.seats_running -= width;
        ended.next_dispatch += f64::from(width) * (took - ESTIMATED_SECONDS);
        self.seats -= width;
        if !ended.is_active() {
            self.active -= 1;
        } else if ended.running == 0 {
            // Nobody saves up time while others are served.
            ended.next_dispatch = ended.next_dispatch.max(progress);
        }
        self.drop_superfluous();
    }

    /// Takes a request out that does not want to wait any more. None when it does not wait.
    pub fn remove(&mut self, queue: usize, id: u64) -> Option<Waiting<W>> {
        let waiting = &mut self.queues.get_mut(queue)?.waiting;
        let index = waiting.iter().position(|request| request.id == id)?;
        let request = waiting.remove(index)?;
        self.waiting -= 1;
        self.seats -= request.width;
        let queue = &mut self.queues[queue];
        queue.seats_waiting -= request.width;
        self.active -= u32::from(!queue.is_active());
        self.drop_superfluous();
        Some(request)
    }

    /// A queue that becomes active begins with the present: it has no claim from before.
    fn wake(&mut self, queue: usize) {
        if !self.queues[queue].is_active() {
            self.queues[queue].next_dispatch = self.progress;
            self.active += 1;
        }
    }

    fn drop_superfluous(&mut self) {
        while self.queues.len() > self.config.queues && self.queues.last().is_some_and(|q| !q.is_active()) {
            self.queues.pop();
        }
        self.turn %= self.queues.len().max(1);
    }
}

/// Between two times; none when the clock was set back.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// The hand of `size` different numbers below `deck` that these bits deal, as cards of a shuffled deck.
fn deal(mut bits: u64, deck: usize, size: usize) -> impl Iterator<Item = usize> {
    let size = size.min(deck).min(HAND_MAX);
    let mut hand = [0; HAND_MAX];
    let mut sorted = [usize::MAX; HAND_MAX];
    for dealt in 0..size {
        let left = (deck - dealt) as u64;
        let mut card = (bits % left) as usize;
        bits /= left;
        // It is the card-th of those that are left: each smaller one that is gone moves it up.
        let gone = &mut sorted[..=dealt];
        let mut place = 0;
        while gone[place] <= card {
            card += 1;
            place += 1;
        }
        gone[place..].rotate_right(1);
        gone[place] = card;
        hand[dealt] = card;
    }
    hand.into_iter().take(size)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_different_cards_of_the_deck(bits: u64, deck in 1_usize..80, size in 1_usize..12) {
            let hand: Vec<usize> = deal(bits, deck, size).collect();
            let different: BTreeSet<usize> = hand.iter().copied().collect();
            prop_assert_eq!(hand.len(), size.min(deck));
            prop_assert_eq!(different.len(), hand.len());
            prop_assert!(hand.iter().all(|card| *card < deck));
        }
    }

    #[test]
    fn every_hand_is_dealt_by_some_bits() {
        let hands: BTreeSet<Vec<usize>> = (0..20).map(|bits| deal(bits, 5, 2).collect()).collect();
        assert_eq!(hands.len(), 20);
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn a_queue_that_has_had_much_waits_for_one_that_has_had_little() {
        let config = Queuing { queues: 2, hand_size: 1, queue_length_limit: 10 };
        let mut queues = Queues::new(config, at(0));
        queues.start(0, 2);
        queues.start(1, 1);
        for (id, queue) in [(1, 0), (2, 0), (3, 1)] {
            queues.enqueue(queue, Waiting { id, width: 1, since: at(0), waiter: () });
        }
        queues.advance(3, at(10));
        queues.finish(0, 2, 10.0);
        queues.finish(1, 1, 10.0);
        let mut order = Vec::new();
        while let Some((queue, head)) = queues.next() {
            order.push(head.id);
            queues.dispatch(queue, 1);
        }
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn queues_that_are_too_many_drain_before_they_go() {
        let config = Queuing { queues: 3, hand_size: 1, queue_length_limit: 1 };
        let mut queues = Queues::new(config, at(0));
        queues.enqueue(2, Waiting { id: 1, width: 1, since: at(0), waiter: () });
        queues.configure(Queuing { queues: 1, ..config });
        assert_eq!(queues.all().len(), 3);
        assert!(queues.is_full(2));
        assert!(queues.remove(2, 9).is_none());
        assert!(queues.remove(2, 1).is_some());
        assert_eq!((queues.all().len(), queues.waiting(), queues.active), (1, 0, 0));
    }
}
