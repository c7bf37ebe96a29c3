//! Makes Jobs at the times a CronJob names (follows upstream's `pkg/controller/cronjob`).

mod reconcile;
#[cfg(test)]
mod tests;

use api::resource::{CRON_JOBS, JOBS};
use api::view::batch::{CronJob, Job};
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index};
use crate::plan::Plan;

pub use reconcile::reconcile;

struct CronJobs {
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let jobs = informers.get::<Job>();
    jobs.add_index(CONTROLLER, |job| controller_index(&job.metadata));
    Box::new(CronJobs { cron_jobs: informers.get(), jobs })
}

#[async_trait]
impl Controller for CronJobs {
    fn watch(&self, watches: &mut Watches) {
        watches.on(CRON_JOBS, &self.cron_jobs, itself);
        watches.on(JOBS, &self.jobs, |delta| controller_of(delta, CRON_JOBS));
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(cron_job) = self.cron_jobs.get(&key.namespace, &key.name) else {
            return Ok(Plan::default());
        };
        let jobs = self.jobs.by_index(CONTROLLER, &cron_job.metadata.uid);
        Ok(reconcile(&cron_job, &jobs, now))
    }
}
