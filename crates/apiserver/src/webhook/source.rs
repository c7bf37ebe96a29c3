//! The webhooks of all configurations.

use std::sync::Arc;

use admission::webhook::Webhook;
use store::Store;

use crate::configured::Configured;

pub struct Source {
    mutating: Configured<Vec<Webhook>>,
    validating: Configured<Vec<Webhook>>,
}

impl Default for Source {
    fn default() -> Source {
        let of = |resource| Configured::new(resource, Webhook::of_configuration);
        Source {
            mutating: of("mutatingwebhookconfigurations.admissionregistration.k8s.io"),
            validating: of("validatingwebhookconfigurations.admissionregistration.k8s.io"),
        }
    }
}

impl Source {
    /// In the order in which they are asked: by configuration name.
    pub fn mutating(&self, store: &Store) -> Vec<Arc<Vec<Webhook>>> {
        self.mutating.all(store)
    }

    pub fn validating(&self, store: &Store) -> Vec<Arc<Vec<Webhook>>> {
        self.validating.all(store)
    }
}
