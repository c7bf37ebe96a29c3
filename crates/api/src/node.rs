//! The group `node.k8s.io`: RuntimeClass (follows `pkg/registry/node/runtimeclass`).

use crate::strategy::Strategy;

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
