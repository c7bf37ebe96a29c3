//! Floods, loans and changes of levels, played without a clock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn level(name: &str, shares: u32, lendable_percent: u32, queues: bool) -> LevelConfig {
    LevelConfig {
        name: name.into(),
        uid: String::new(),
        exempt: false,
        shares,
        lendable_percent,
        borrowing_limit_percent: None,
        queuing: queues.then_some(Queuing { queues: 8, hand_size: 3, queue_length_limit: 20 }),
    }
}

/// Seats with what waits known by number, and everything that has been granted.
struct Played {
    seats: Seats<usize>,
    granted: BTreeMap<usize, Grant>,
    waiting: BTreeMap<usize, Ticket>,
    refused: Vec<(usize, Reason)>,
    next: usize,
}

impl Played {
    fn new(total: u32, levels: &[LevelConfig]) -> Played {
        let mut seats = Seats::new(total);
        seats.configure(levels, NOW, &mut Vec::new());
        Played { seats, granted: BTreeMap::new(), waiting: BTreeMap::new(), refused: Vec::new(), next: 0 }
    }

    fn take(&mut self, out: Dispatched<usize>) {
        for (number, grant) in out {
            self.waiting.remove(&number);
            assert!(self.granted.insert(number, grant).is_none(), "{number} is granted twice");
        }
    }

    /// The number of the request.
    fn arrive(&mut self, level: &str, flow: u64, width: u32) -> usize {
        let (number, mut out) = (self.next, Vec::new());
        self.next += 1;
        let id = self.seats.id(level).expect("there is such a level");
        match self.seats.arrive(id, flow, width, || number, NOW, &mut out) {
            Arrival::Admitted(grant) => out.push((number, grant)),
            Arrival::Waits(ticket) => {
                self.waiting.insert(number, ticket);
            }
            Arrival::Refused(reason) => self.refused.push((number, reason)),
            Arrival::Unknown => panic!("{level} is not known"),
        }
        self.take(out);
        number
    }

    fn arrive_many(&mut self, level: &str, flow: u64, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.arrive(level, flow, 1)).collect()
    }

    fn leave(&mut self, number: usize) {
        let mut out = Vec::new();
        let grant = self.granted.remove(&number).expect("has a seat");
        self.seats.leave(&grant, NOW, &mut out);
        self.take(out);
    }

    fn give_up(&mut self, number: usize) {
        let mut out = Vec::new();
        let ticket = self.waiting.remove(&number).expect("waits");
        assert_eq!(self.seats.give_up(ticket, NOW, &mut out), Some(number));
        self.take(out);
    }

    fn configure(&mut self, levels: &[LevelConfig]) {
        let mut out = Vec::new();
        self.seats.configure(levels, NOW, &mut out);
        self.take(out);
    }

    /// What holds after every step.
    fn check(&self) {
        let seats = &self.seats;
        let used: u32 = self.granted.values().map(Grant::width).sum();
        assert_eq!(seats.levels().map(|level| level.in_use).sum::<u32>(), used, "a seat is lost");
        assert_eq!(seats.waiting, self.waiting.len(), "a request is forgotten");
        let exchanges = seats.levels().map(|level| level.exchange(level.in_use));
        let sum = exchanges.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!((seats.borrowed, seats.offered), sum);
        for level in seats.levels() {
            let head = level.queues.as_ref().and_then(Queues::next);
            let fits = head.is_some_and(|(_, head)| seats.fits(level, level.width(head.width)));
            assert!(!fits, "a seat stays free");
        }
    }
}

#[test]
fn what_one_level_does_not_need_another_borrows_until_it_is_needed() {
    let mut played = Played::new(10, &[level("a", 1, 60, true), level("b", 1, 0, true)]);
    let first = played.arrive_many("b", 7, 9);
    assert_eq!((played.granted.len(), played.waiting.len()), (8, 1), "five of its own and three of a's");
    for _ in 0..2 {
        let own = played.arrive("a", 1, 1);
        assert!(played.granted.contains_key(&own), "what is not lendable is there at once");
    }
    let third = played.arrive("a", 1, 1);
    assert!(!played.granted.contains_key(&third), "what is lent comes back when it is done with");
    played.leave(first[0]);
    assert!(played.granted.contains_key(&third));
    played.check();
}

#[test]
fn a_flood_of_one_flow_does_not_keep_another_waiting() {
    let mut played = Played::new(4, &[level("l", 1, 0, true)]);
    let flood = played.arrive_many("l", 1, 40);
    assert!(played.waiting.len() > 30);
    // Its hand has a queue that the flood's has not.
    let quiet = played.arrive("l", 300, 1);
    assert!(played.waiting.contains_key(&quiet));
    played.leave(flood[0]);
    assert!(played.granted.contains_key(&quiet), "it is next, before all of the flood");
}

#[test]
fn a_full_queue_and_a_level_without_queues_refuse() {
    let mut played = Played::new(2, &[level("q", 1, 0, true), level("r", 1, 0, false)]);
    played.arrive_many("q", 5, 62);
    assert_eq!(played.refused, [(61, Reason::QueueFull)], "three queues of twenty, and one seat");
    played.arrive_many("r", 5, 2);
    assert_eq!(played.refused.last(), Some(&(63, Reason::ConcurrencyLimit)));
}

#[test]
fn an_exempt_level_is_not_limited_and_a_level_that_is_gone_lasts_as_long_as_its_requests() {
    let exempt = LevelConfig { exempt: true, ..level("e", 0, 0, false) };
    let mut played = Played::new(1, &[exempt.clone(), level("l", 1, 0, true)]);
    played.arrive_many("e", 0, 50);
    let (running, waits) = (played.arrive("l", 0, 1), played.arrive("l", 0, 1));
    played.configure(&[exempt]);
    assert!(played.waiting.contains_key(&waits));
    played.leave(running);
    played.leave(waits);
    assert_eq!((played.seats.id("l"), played.refused.len()), (None, 0));
    played.check();
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { level: usize, flow: u64, width: u32 },
    Leave(prop::sample::Index),
    GiveUp(prop::sample::Index),
    Configure { shares: [u32; 3], lendable: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..4_u64, 1..6_u32).prop_map(|(level, flow, width)| Step::Arrive { level, flow, width }),
        5 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        1 => ([0..4_u32, 0..4, 0..4], 0..=100_u32)
            .prop_map(|(shares, lendable)| Step::Configure { shares, lendable }),
    ]
}

fn levels(shares: [u32; 3], lendable: u32) -> Vec<LevelConfig> {
    let names = ["a", "b", "c"].into_iter().zip(shares);
    names.map(|(name, shares)| level(name, shares, lendable, name != "c")).collect()
}

proptest! {
    #[test]
    fn no_seat_is_lost_and_nobody_is_forgotten(
        total in 0..12_u32,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut played = Played::new(total, &levels([1, 1, 1], 50));
        for step in steps {
            match step {
                Step::Arrive { level, flow, width } => {
                    played.arrive(["a", "b", "c"][level], flow, width);
                }
                Step::Leave(which) if !played.granted.is_empty() => {
                    let numbers: Vec<usize> = played.granted.keys().copied().collect();
                    played.leave(*which.get(&numbers));
                }
                Step::GiveUp(which) if !played.waiting.is_empty() => {
                    let numbers: Vec<usize> = played.waiting.keys().copied().collect();
                    played.give_up(*which.get(&numbers));
                }
                Step::Configure { shares, lendable } => played.configure(&levels(shares, lendable)),
                _ => {}
            }
            played.check();
        }
        // Whoever has a seat leaves in the end; then everybody has had one, if there are any.
        while let Some(number) = played.granted.keys().next().copied() {
            played.leave(number);
            played.check();
        }
        let stuck = played.seats.levels().filter(|level| level.waiting() > 0);
        for level in stuck {
            prop_assert!(level.limits.nominal == 0, "{} has seats and lets requests wait", level.name);
        }
    }

    #[test]
    fn without_changes_no_more_is_borrowed_than_is_offered(
        total in 1..20_u32,
        lendable in 0..=100_u32,
        arrivals in prop::collection::vec((0..3_usize, 0..9_u64, 1..4_u32, any::<bool>()), 1..80),
    ) {
        let mut played = Played::new(total, &levels([1, 2, 3], lendable));
        for (level, flow, width, leaves) in arrivals {
            let number = played.arrive(["a", "b", "c"][level], flow, width);
            if leaves && played.granted.contains_key(&number) {
                played.leave(number);
            }
            prop_assert!(played.seats.borrowed <= played.seats.offered);
        }
    }
}
