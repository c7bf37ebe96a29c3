//! What the scheduler hears of those that own, select or protect pods.

use api::view::apps::{ReplicaSet, ReplicationController, StatefulSet};
use api::view::core::Service;
use api::view::policy::PodDisruptionBudget;
use client::{Informer, Informers};
use futures_util::stream::{BoxStream, SelectAll, select_all};

use super::storage::changes;
use crate::workloads::Change;

pub struct Owners {
    pub services: Informer<Service>,
    pub replication_controllers: Informer<ReplicationController>,
    pub replica_sets: Informer<ReplicaSet>,
    pub stateful_sets: Informer<StatefulSet>,
    pub budgets: Informer<PodDisruptionBudget>,
}

impl Owners {
    pub fn new(informers: &Informers) -> Self {
        Owners {
            services: informers.get(),
            replication_controllers: informers.get(),
            replica_sets: informers.get(),
            stateful_sets: informers.get(),
            budgets: informers.get(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(
            self.services.synced(),
            self.replication_controllers.synced(),
            self.replica_sets.synced(),
            self.stateful_sets.synced(),
            self.budgets.synced(),
        );
    }

    /// All of them now, then every change.
    pub fn changes(&self) -> SelectAll<BoxStream<'static, Change>> {
        select_all([
            changes(&self.services, Change::Service),
            changes(&self.replication_controllers, Change::ReplicationController),
            changes(&self.replica_sets, Change::ReplicaSet),
            changes(&self.stateful_sets, Change::StatefulSet),
            changes(&self.budgets, Change::Budget),
        ])
    }
}
