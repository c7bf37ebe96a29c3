//! A few dozen pods live and die; `faults` does so for thousands, and lets everything else happen.

use e2e::faults;

const LIVES: usize = 60;

#[test]
fn nothing_is_left_of_pods_that_have_lived() -> anyhow::Result<()> {
    println!("{}", faults::live(LIVES)?);
    Ok(())
}
