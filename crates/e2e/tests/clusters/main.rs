//! Whole clusters, each on a machine of its own, driven by real `kubectl`, with real containers.

mod bad_input;
mod kubectl_verbs;
mod probes_and_limits;
mod registry_pull;
mod three_tier;
mod up_and_down;
