//! `coordination.k8s.io/v1`.

use apimachinery::{meta::ObjectMeta, time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lease {
    pub metadata: ObjectMeta,
    pub spec: LeaseSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub holder_identity: Option<String>,
    pub lease_duration_seconds: Option<i64>,
    #[serde(with = "time::micro_time")]
    pub acquire_time: Option<Timestamp>,
    #[serde(with = "time::micro_time")]
    pub renew_time: Option<Timestamp>,
    pub lease_transitions: Option<i64>,
}

super::view! { Lease => LEASES; }
