//! Every controller in one table.

use client::{Client, Informers};

use crate::controller::Controller;
use crate::{deployment, endpointslice, replicaset, rootca, serviceaccount};

/// What controllers need to know about the cluster.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The certificate bundle, PEM, that `kube-root-ca.crt` publishes.
    pub root_ca: String,
}

/// One controller.
pub struct Row {
    /// Its service account in kube-system, whose rights are those of the ClusterRole `system:controller:NAME`; also
    /// the source of its events.
    pub name: &'static str,
    pub new: fn(&Config, &Informers, &Client) -> Box<dyn Controller>,
    /// How many keys are worked on at once (upstream: the `--concurrent-*-syncs` flags).
    pub workers: usize,
}

pub static CATALOGUE: &[Row] = &[
    Row { name: "deployment-controller", new: deployment::new, workers: 5 },
    Row { name: "replicaset-controller", new: replicaset::new, workers: 5 },
    Row { name: "endpointslice-controller", new: endpointslice::new, workers: 5 },
    Row { name: "service-account-controller", new: serviceaccount::new, workers: 1 },
    Row { name: "root-ca-cert-publisher", new: rootca::new, workers: 1 },
];
