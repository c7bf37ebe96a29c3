//! The Kubernetes API server: one pipeline for every request of every kind, over HTTPS or from within the process.
//!
//! What differs between kinds comes from their row in `api::catalogue`. Nothing reaches the store but through here.

// The way of a request.
pub mod authentication;
pub mod authorization;
mod body;
mod call;
mod finish;
mod flowcontrol;
mod impersonation;
mod kind;
mod negotiation;
mod pipeline;
mod query;
mod request_info;

// What it does.
mod aggregation;
pub mod component;
mod componentstatus;
mod customresource;
mod delete;
mod discovery;
mod health;
mod list;
mod nonresource;
mod openapi;
mod patch;
mod resource;
mod review;
mod subresource;
mod version;
mod watch;
mod write;

// What these share.
mod access_review;
mod admission_review;
mod admit;
pub mod audit;
mod configured;
mod continue_token;
mod conversion;
mod debug;
mod decoded;
mod deletion;
mod draft;
mod encodings;
mod etcd_codec;
mod forward;
mod frames;
mod gathered;
mod gzip;
mod metadata;
mod metrics;
mod ownership;
mod part;
mod pieces;
mod policy;
mod prometheus;
mod quota;
mod random;
pub mod review_client;
mod row;
mod selection;
mod sending;
mod service_allocation;
mod ttl_cache;
mod view;
mod webhook;
mod wire;

// The server around them.
mod advertise;
mod bootstrap;
pub mod config;
mod core;
pub mod enablement;
pub mod encryption;
mod event_ttl;
pub mod features;
mod follow;
mod in_process;
mod lasting;
mod listener;
mod loopback;
mod server;
mod stall;
pub mod tls;
mod upkeep;
mod websocket;

#[cfg(test)]
mod tests;

pub use admission::Selection as AdmissionPlugins;
pub use aggregation::{Backend, BackendFuture, FRONT_PROXY_CLIENT, FrontProxy, GroupServed};
pub use config::{Cidr, Config};
pub use etcd_codec::EtcdCodec;
pub use server::{ApiServer, StartError};
pub use tls::SharedTls;
