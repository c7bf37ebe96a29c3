//! Flags that say whether, and how, one of several processes with the same work is elected to do it. Names are upstream's.

use std::time::Duration;

use clap::Args;
use client::leaderelection::Timing;

use super::access::duration;
use crate::services::leader::Election;

#[derive(Args, Clone)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderElectionArgs {
    /// Work only while this process leads all that would do the same; on by default where there may be others
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: Option<bool>,
    /// How long others wait for a leader that gives no sign
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long a leader that cannot renew goes on working
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// The pause between two renewals
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// The kind of object that the leader holds
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The namespace of that object
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

impl LeaderElectionArgs {
    /// The election to stand in, if there is one. `may_be_several` decides where the flag does not.
    pub fn election(&self, may_be_several: bool) -> anyhow::Result<Option<Election>> {
        if !self.leader_elect.unwrap_or(may_be_several) {
            return Ok(None);
        }
        let timing = Timing {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        };
        Election::new(self.leader_elect_resource_namespace.clone(), timing.validate()?).map(Some)
    }
}

/// The same for a process that has one thing to do.
#[derive(Args, Clone)]
pub struct OneElectionArgs {
    #[command(flatten)]
    pub election: LeaderElectionArgs,
    /// The name of the object that the leader holds; that of the component if not given
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
}
