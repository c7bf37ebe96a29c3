//! What the operator wants kept free of the node's memory, disks and processes (follows `ParseThresholdConfig`). Pure.

use std::time::Duration;

use apimachinery::quantity::{Format, Quantity};
use apimachinery::time::parse_duration;

use crate::kubeletconfig::Table;

/// What is measured of the node; the names are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    MemoryAvailable,
    AllocatableMemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    ContainerFsAvailable,
    ContainerFsInodesFree,
    PidAvailable,
}

/// What a node's condition says it is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Memory,
    Disk,
    Pid,
}

impl Condition {
    pub fn kind(self) -> &'static str {
        match self {
            Condition::Memory => "MemoryPressure",
            Condition::Disk => "DiskPressure",
            Condition::Pid => "PIDPressure",
        }
    }
}

/// Each signal with its name, the resource that is reclaimed, and the node's condition.
const SIGNALS: [(Signal, &str, &str, Condition); 9] = [
    (Signal::MemoryAvailable, "memory.available", "memory", Condition::Memory),
    (Signal::AllocatableMemoryAvailable, "allocatableMemory.available", "memory", Condition::Memory),
    (Signal::NodeFsAvailable, "nodefs.available", "ephemeral-storage", Condition::Disk),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree", "inodes", Condition::Disk),
    (Signal::ImageFsAvailable, "imagefs.available", "ephemeral-storage", Condition::Disk),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree", "inodes", Condition::Disk),
    (Signal::ContainerFsAvailable, "containerfs.available", "ephemeral-storage", Condition::Disk),
    (Signal::ContainerFsInodesFree, "containerfs.inodesFree", "inodes", Condition::Disk),
    (Signal::PidAvailable, "pid.available", "pids", Condition::Pid),
];

impl Signal {
    fn row(self) -> &'static (Signal, &'static str, &'static str, Condition) {
        SIGNALS.iter().find(|row| row.0 == self).expect("the table has every signal")
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub fn resource(self) -> &'static str {
        self.row().2
    }

    pub fn condition(self) -> Condition {
        self.row().3
    }

    fn parse(name: &str) -> Result<Self, Error> {
        let row = SIGNALS.iter().find(|row| row.1 == name);
        row.map(|row| row.0).ok_or_else(|| Error::Signal(name.to_owned()))
    }

    /// How amounts of it are written.
    pub fn format(self) -> Format {
        if matches!(self.resource(), "inodes" | "pids") { Format::DecimalSi } else { Format::BinarySi }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    #[error("eviction threshold {0} must be a positive amount or a percentage: {1}")]
    Amount(String, String),
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGracePeriod(String),
    #[error("eviction grace period {0} is no duration: {1}")]
    GracePeriod(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or processes.
    Units(i64),
    Percent(f64),
}

impl Amount {
    /// `None` for one that never matters.
    fn parse(name: &str, text: &str) -> Result<Option<Self>, Error> {
        let wrong = || Error::Amount(name.to_owned(), text.to_owned());
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(wrong());
            }
            let matters = percent > 0.0 && percent < 100.0;
            return Ok(matters.then_some(Amount::Percent(percent)));
        }
        let quantity: Quantity = text.parse().map_err(|_| wrong())?;
        if quantity.sign() <= 0 {
            return Err(wrong());
        }
        Ok(Some(Amount::Units(quantity.value())))
    }

    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Units(units) => units,
            // The fraction of a byte does not matter.
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

/// Pods are evicted when less than this is free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub amount: Amount,
    /// How long it must be short of that; pods get time to end then. `None` for at once.
    pub grace_period: Option<Duration>,
    /// What must be free beyond the threshold before the shortage is over.
    pub minimum_reclaim: Option<Amount>,
}

/// What a guest keeps free of a large disk, see [`hard_for_guest`].
const GUEST_FREE_BYTES: i64 = 1 << 30;

/// Upstream's `DefaultEvictionHard`.
pub fn hard_by_default() -> Table {
    let hard = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ];
    hard.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// The same for a cluster that is a guest on somebody's machine. The shares of a large disk are more than its owner may
/// have left, and what fills it is not for the pods to give back: a gigabyte is kept free, or the share where that is less.
pub fn hard_for_guest(disk_bytes: i64) -> Table {
    let mut hard = hard_by_default();
    for (name, amount) in &mut hard {
        let is_of_disk = matches!(name.as_str(), "nodefs.available" | "imagefs.available");
        let share = Amount::parse(name, amount).ok().flatten().filter(|_| is_of_disk);
        if share.is_some_and(|share| share.of(disk_bytes) > GUEST_FREE_BYTES) {
            *amount = Quantity::new(GUEST_FREE_BYTES, Format::BinarySi).to_string();
        }
    }
    hard
}

/// As the configuration writes them: names of signals with amounts or durations.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds<'a> {
    pub hard: &'a Table,
    pub soft: &'a Table,
    pub soft_grace_period: &'a Table,
    pub minimum_reclaim: &'a Table,
    /// Whether pods together are to stay within what the node has for them.
    pub of_allocatable: bool,
}

impl Thresholds<'_> {
    pub fn parse(&self) -> Result<Vec<Threshold>, Error> {
        let of_allocatable = Threshold {
            signal: Signal::AllocatableMemoryAvailable,
            amount: Amount::Units(0),
            grace_period: None,
            minimum_reclaim: None,
        };
        let mut thresholds: Vec<Threshold> =
            self.of_allocatable.then_some(of_allocatable).into_iter().collect();
        for (name, text) in self.hard {
            thresholds.extend(self.threshold(name, text, None)?);
        }
        for (name, text) in self.soft {
            let period = self.soft_grace_period.get(name);
            let period = period.ok_or_else(|| Error::NoGracePeriod(name.clone()))?;
            let parsed = parse_duration(period).and_then(|d| Duration::try_from(d).ok());
            let parsed = parsed.ok_or_else(|| Error::GracePeriod(name.clone(), period.clone()))?;
            thresholds.extend(self.threshold(name, text, Some(parsed))?);
        }
        Ok(thresholds)
    }

    fn threshold(
        &self,
        name: &str,
        text: &str,
        grace_period: Option<Duration>,
    ) -> Result<Option<Threshold>, Error> {
        let signal = Signal::parse(name)?;
        let reclaim = self.minimum_reclaim.get(name);
        let minimum_reclaim = reclaim.map(|text| Amount::parse(name, text)).transpose()?.flatten();
        let amount = Amount::parse(name, text)?;
        Ok(amount.map(|amount| Threshold { signal, amount, grace_period, minimum_reclaim }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kubeletconfig::KubeletConfiguration;

    fn table(name: &str, text: &str) -> Table {
        [(name.to_owned(), text.to_owned())].into()
    }

    fn hard(name: &str, text: &str) -> Result<Option<Amount>, Error> {
        let given = KubeletConfiguration { eviction_hard: table(name, text), ..Default::default() };
        Ok(given.thresholds()?.get(1).map(|threshold| threshold.amount))
    }

    #[test]
    fn amounts_and_percentages_are_read() {
        assert_eq!(hard("memory.available", "1Gi"), Ok(Some(Amount::Units(1 << 30))));
        assert_eq!(hard("nodefs.available", "12.5%"), Ok(Some(Amount::Percent(12.5))));
        assert_eq!(hard("nodefs.available", "0%"), Ok(None));
        assert_eq!(hard("cpu.available", "1"), Err(Error::Signal("cpu.available".into())));
        for text in ["-1", "0", "101%", "x", "x%"] {
            assert_eq!(hard("pid.available", text), Err(Error::Amount("pid.available".into(), text.into())));
        }
        assert_eq!(Amount::Percent(12.5).of(1000), 125);
    }

    #[test]
    fn a_soft_threshold_needs_a_grace_period() {
        let mut given = KubeletConfiguration {
            eviction_hard: Table::new(),
            eviction_soft: table("memory.available", "1Gi"),
            eviction_minimum_reclaim: table("memory.available", "10%"),
            ..Default::default()
        };
        assert_eq!(given.thresholds(), Err(Error::NoGracePeriod("memory.available".into())));
        given.eviction_soft_grace_period = table("memory.available", "1m30s");
        let parsed = given.thresholds().expect("thresholds")[1];
        assert_eq!(parsed.grace_period, Some(Duration::from_secs(90)));
        assert_eq!(parsed.minimum_reclaim, Some(Amount::Percent(10.0)));
    }

    #[test]
    fn the_defaults_are_upstreams() {
        let thresholds = KubeletConfiguration::default().thresholds().expect("thresholds");
        let names: Vec<&str> = thresholds.iter().map(|t| t.signal.name()).collect();
        let imagefs = ["imagefs.available", "imagefs.inodesFree"];
        let nodefs = ["nodefs.available", "nodefs.inodesFree"];
        assert_eq!(
            names,
            [&["allocatableMemory.available"][..], &imagefs, &["memory.available"], &nodefs].concat()
        );
    }

    #[test]
    fn where_nothing_is_enforced_pods_may_use_what_the_node_has() {
        let given =
            KubeletConfiguration { enforce_node_allocatable: vec!["none".into()], ..Default::default() };
        let thresholds = given.thresholds().expect("thresholds");
        assert!(thresholds.iter().all(|t| t.signal != Signal::AllocatableMemoryAvailable));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,12}") {
            drop(hard("memory.available", &text));
        }
    }
}
