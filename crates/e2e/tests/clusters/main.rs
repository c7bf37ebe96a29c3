//! Whole clusters, each on a machine of its own, driven by real `kubectl`, with real containers.

mod bad_input;
mod csi_driver;
mod dra_driver;
mod drivers;
mod durability;
mod faults;
mod hostile_clients;
mod ingress;
mod joining;
mod kubectl_verbs;
mod kubelet_configuration;
mod large_chart;
mod neighbours;
mod networking;
mod pod_features;
mod pod_lifecycle;
mod probes_and_limits;
mod registry_pull;
mod three_tier;
mod up_and_down;
