//! The last two rounds of asking all kubelets, and what was used between them. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::exposition::{ContainerName, Point, Scrape};

/// What all kubelets said in one round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub nodes: BTreeMap<String, Point>,
    pub containers: BTreeMap<ContainerName, Point>,
}

impl Round {
    pub fn add(&mut self, node_name: &str, scrape: Scrape) {
        self.nodes.extend(scrape.node.map(|point| (node_name.to_owned(), point)));
        self.containers.extend(scrape.containers);
    }
}

/// What was used in a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Billionths of a processor.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// The end of that while.
    pub at: Timestamp,
    pub window: SignedDuration,
}

#[derive(Clone, Debug, Default)]
pub struct Storage {
    older: Round,
    newer: Round,
}

impl Storage {
    /// Two rounds from nothing.
    pub fn new(older: Round, newer: Round) -> Self {
        Storage { older, newer }
    }

    pub fn push(&mut self, round: Round) {
        self.older = std::mem::replace(&mut self.newer, round);
    }

    pub fn node(&self, name: &str) -> Option<Usage> {
        usage(self.older.nodes.get(name), self.newer.nodes.get(name)?)
    }

    /// By container. A pod one of whose containers is not known yet has none.
    pub fn pod<'a>(
        &self,
        namespace: &str,
        name: &str,
        containers: impl Iterator<Item = &'a str>,
    ) -> Option<Vec<(&'a str, Usage)>> {
        let of = |container: &'a str| {
            let key =
                ContainerName { namespace: namespace.into(), pod: name.into(), container: container.into() };
            Some((container, usage(self.older.containers.get(&key), self.newer.containers.get(&key)?)?))
        };
        containers.map(of).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
    }
}

/// Since the older point, or since the start of what started after it.
fn usage(older: Option<&Point>, newer: &Point) -> Option<Usage> {
    let same =
        older.filter(|older| older.started_at == newer.started_at && older.cpu_seconds <= newer.cpu_seconds);
    let (since, cpu_seconds) = match same {
        Some(older) => (older.at, older.cpu_seconds),
        None => (newer.started_at?, 0.0),
    };
    let window = newer.at.duration_since(since);
    if window <= SignedDuration::ZERO {
        return None;
    }
    let rate = (newer.cpu_seconds - cpu_seconds) / window.as_secs_f64();
    // A float turns into the nearest number that fits.
    Some(Usage {
        cpu_nanos: (rate * 1e9) as u64,
        memory_bytes: newer.memory_bytes as u64,
        at: newer.at,
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, cpu_seconds: f64, started_at: i64) -> Point {
        let time = |seconds| Timestamp::from_second(seconds).expect("a time");
        Point { at: time(at), cpu_seconds, memory_bytes: 64.0, started_at: Some(time(started_at)) }
    }

    fn check(older: Option<Point>, newer: Point, expect: Option<(u64, i64)>) {
        let found = usage(older.as_ref(), &newer).map(|usage| (usage.cpu_nanos, usage.window.as_secs()));
        assert_eq!(found, expect, "{older:?} {newer:?}");
    }

    #[test]
    fn use_is_what_came_between_two_points() {
        check(Some(point(10, 1.0, 0)), point(20, 6.0, 0), Some((500_000_000, 10)));
        check(Some(point(10, 1.0, 0)), point(10, 1.0, 0), None);
    }

    #[test]
    fn what_started_meanwhile_counts_from_its_start() {
        check(None, point(20, 2.0, 16), Some((500_000_000, 4)));
        check(Some(point(10, 9.0, 0)), point(20, 2.0, 16), Some((500_000_000, 4)));
    }

    #[test]
    fn a_pod_is_known_when_all_its_containers_are() {
        let key = ContainerName { namespace: "n".into(), pod: "p".into(), container: "a".into() };
        let round = Round { containers: [(key, point(20, 2.0, 10))].into(), ..Round::default() };
        let storage = Storage::new(Round::default(), round);
        assert!(storage.pod("n", "p", ["a"].into_iter()).is_some());
        assert!(storage.pod("n", "p", ["a", "b"].into_iter()).is_none());
        assert!(storage.pod("n", "p", [].into_iter()).is_none());
    }
}
