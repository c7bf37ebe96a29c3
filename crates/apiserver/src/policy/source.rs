//! The policies of both kinds with their bindings, compiled once for each of their states.

use std::sync::Arc;

use admission::policy::{Binding, Mutations, Policy, Validations};
use store::Store;

use crate::configured::Configured;

/// Policies of a kind and the bindings that put them to use.
struct Kind<R> {
    policies: Configured<Policy<R>>,
    bindings: Configured<Binding>,
}

pub type Bound<R> = (Vec<Arc<Policy<R>>>, Vec<Arc<Binding>>);

impl<R> Kind<R> {
    /// None of both, where nothing is bound.
    fn all(&self, store: &Store) -> Bound<R> {
        let bindings = self.bindings.all(store);
        let policies = if bindings.is_empty() { Vec::new() } else { self.policies.all(store) };
        (policies, bindings)
    }
}

pub struct Source {
    mutating: Kind<Mutations>,
    validating: Kind<Validations>,
}

impl Default for Source {
    fn default() -> Source {
        let bindings = |resource| Configured::new(resource, Binding::read);
        Source {
            mutating: Kind {
                policies: Configured::new(
                    "mutatingadmissionpolicies.admissionregistration.k8s.io",
                    Policy::<Mutations>::read,
                ),
                bindings: bindings("mutatingadmissionpolicybindings.admissionregistration.k8s.io"),
            },
            validating: Kind {
                policies: Configured::new(
                    "validatingadmissionpolicies.admissionregistration.k8s.io",
                    Policy::<Validations>::read,
                ),
                bindings: bindings("validatingadmissionpolicybindings.admissionregistration.k8s.io"),
            },
        }
    }
}

impl Source {
    pub fn mutating(&self, store: &Store) -> Bound<Mutations> {
        self.mutating.all(store)
    }

    pub fn validating(&self, store: &Store) -> Bound<Validations> {
        self.validating.all(store)
    }

    pub fn has_mutating(&self, store: &Store) -> bool {
        !self.mutating.bindings.all(store).is_empty()
    }

    pub fn has_validating(&self, store: &Store) -> bool {
        !self.validating.bindings.all(store).is_empty()
    }
}
