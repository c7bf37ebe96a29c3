//! Carries a plan out: each write as one request, alike ones in parallel batches that start small and double
//! (follows upstream's `slowStartBatch`), so that what fails for all fails once.

use apimachinery::Value;
use apimachinery::meta::str_at;
use client::{Client, DeleteOptions, EventRecorder};
use futures_util::future::join_all;

use crate::consistency::Consistency;
use crate::controller::{Failure, FailureKind, Key};
use crate::plan::{Action, ERROR, Event, NAME, Plan, Step};

/// Upstream: `SlowStartInitialBatchSize`.
const BATCH_INITIAL: usize = 1;

/// One controller's means of writing.
pub struct Executor {
    pub client: Client,
    pub recorder: EventRecorder,
    pub consistency: Consistency,
}

impl Executor {
    /// Carries out the steps in order up to the first failure.
    pub async fn carry_out(&self, key: &Key, plan: &Plan) -> Result<(), Failure> {
        for event in &plan.events {
            self.tell(event, "", "");
        }
        let mut rest = plan.steps.as_slice();
        let mut batch = BATCH_INITIAL;
        while let Some(first) = rest.first() {
            let alike = rest.iter().take_while(|step| is_alike(&first.action, &step.action)).count();
            let (now, later) = rest.split_at(alike.min(batch));
            batch = if alike > batch { batch * 2 } else { BATCH_INITIAL };
            rest = later;
            for result in join_all(now.iter().map(|step| self.take(key, step))).await {
                result?;
            }
        }
        Ok(())
    }

    async fn take(&self, key: &Key, step: &Step) -> Result<(), Failure> {
        match self.send(&step.action).await {
            Ok(written) => {
                let resource = step.action.resource();
                let version = str_at(&written, &["metadata", "resourceVersion"]);
                self.consistency.wrote(key, resource, version);
                if let Some(event) = &step.done {
                    self.tell(event, name_of(&step.action, &written), "");
                }
                Ok(())
            }
            // The aim is reached, though not by us.
            Err(error) if error.is_not_found() && is_delete(&step.action) => Ok(()),
            Err(error) => {
                let message = error.to_string();
                if let Some(event) = step.failed.as_ref().filter(|_| !error.is_namespace_terminating()) {
                    self.tell(event, name_of(&step.action, &Value::Null), &message);
                }
                Err(Failure { resource: step.action.resource(), message, kind: kind_of(&error) })
            }
        }
    }

    async fn send(&self, action: &Action) -> client::error::Result<Value> {
        let client = &self.client;
        match action {
            Action::Create { resource, namespace, object } => {
                client.create(*resource, namespace, object).await
            }
            Action::Update { resource, namespace, name, subresource, object } => {
                client.update(*resource, namespace, name, *subresource, object).await
            }
            Action::Patch { resource, namespace, name, subresource, kind, patch } => {
                client.patch(*resource, namespace, name, *subresource, *kind, patch).await
            }
            Action::Delete { resource, namespace, name, options } => {
                client.delete(*resource, namespace, name, options).await
            }
            Action::DeleteCollection { resource, namespace } => {
                // What a kind would orphan by default must go too.
                let options =
                    DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
                client.delete_collection(*resource, namespace, "", &options).await
            }
        }
    }

    fn tell(&self, event: &Event, name: &str, error: &str) {
        let message = event.message.replace(NAME, name).replace(ERROR, error);
        self.recorder.event(&event.regarding, event.kind, event.reason, message);
    }
}

fn kind_of(error: &client::Error) -> FailureKind {
    if error.is_namespace_terminating() {
        FailureKind::NamespaceTerminating
    } else if error.is_conflict() || error.is_already_exists() || error.is_not_found() {
        FailureKind::Stale
    } else {
        FailureKind::Refused
    }
}

fn is_delete(action: &Action) -> bool {
    matches!(action, Action::Delete { .. } | Action::DeleteCollection { .. })
}

fn is_alike(first: &Action, other: &Action) -> bool {
    std::ptr::eq(first, other)
        || (first.is_parallel()
            && std::mem::discriminant(first) == std::mem::discriminant(other)
            && first.resource() == other.resource())
}

fn name_of<'a>(action: &'a Action, written: &'a Value) -> &'a str {
    match action {
        Action::Create { object, .. } => match str_at(written, &["metadata", "name"]) {
            "" => str_at(object, &["metadata", "name"]),
            name => name,
        },
        Action::Update { name, .. } | Action::Patch { name, .. } | Action::Delete { name, .. } => name,
        Action::DeleteCollection { .. } => "",
    }
}
