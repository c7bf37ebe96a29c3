//! `idle`: what a cluster costs that does nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::{Selection, cpu_time, pss_bytes};
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub struct Idle {
    /// How long the CPU time is watched
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    processes: Selection,
}

impl Idle {
    pub async fn run(self) -> Result<Report> {
        let pids = self.processes.find()?;
        let (before, start) = (cpu_time(&pids), Instant::now());
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let used = cpu_time(&pids).saturating_sub(before);
        let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(Report::new("idle")
            .row("processes", pids.len() as f64, "")
            .megabytes("PSS", pss_bytes(&pids)?)
            .row("CPU", share * 100.0, "% of a core"))
    }
}
