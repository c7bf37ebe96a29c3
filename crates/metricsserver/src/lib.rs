//! `metrics.k8s.io`: what nodes and pods use, asked of the kubelets while somebody wants to know
//! (follows upstream's metrics-server).
//!
//! Whoever serves the API hands requests in; nothing here knows how they came.

pub mod api;
pub mod exposition;
pub mod server;
pub mod storage;

pub use server::MetricsServer;
