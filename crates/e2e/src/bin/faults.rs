//! Does to a cluster of its own whatever can happen to one, for as long as it is told, and looks what is left.
//!
//! `cargo run -p e2e --bin faults -- --minutes 10 --seed 7`; a run with the same seed strikes in the same order.

use std::time::Duration;

use anyhow::Context as _;
use e2e::faults::{self, Until};

const USAGE: &str = "faults [--minutes NUMBER] [--seed NUMBER] [--lives NUMBER]";

fn main() -> anyhow::Result<()> {
    let (mut minutes, mut seed, mut lives) = (None, u64::from(std::process::id()), None);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().and_then(|value| value.parse().ok()).context(USAGE)?;
        match flag.as_str() {
            "--minutes" => minutes = Some(value),
            "--seed" => seed = value,
            "--lives" => lives = Some(value),
            _ => anyhow::bail!(USAGE),
        }
    }
    if let Some(lives) = lives {
        println!("{}", faults::live(usize::try_from(lives)?)?);
        return Ok(());
    }
    let length = minutes.map(|minutes: u64| Duration::from_secs(60 * minutes));
    println!("seed {seed}");
    faults::run(seed, length.map_or(Until::EachOnce, Until::After)).map(drop)
}
