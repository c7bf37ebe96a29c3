//! What the tool `faults` does for longer: everything happens once, and a few dozen pods live and die.

use e2e::faults::{self, Until};

/// Any will do; another is another order.
const SEED: u64 = 1;
const LIVES: usize = 60;

#[test]
fn a_cluster_gets_over_everything_that_happens_to_it_once() -> anyhow::Result<()> {
    faults::run(SEED, Until::EachOnce).map(drop)
}

#[test]
fn nothing_is_left_of_pods_that_have_lived() -> anyhow::Result<()> {
    println!("{}", faults::live(LIVES)?);
    Ok(())
}
