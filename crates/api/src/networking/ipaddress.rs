//! IPAddress (follows `pkg/registry/networking/ipaddress`).

use crate::strategy::Strategy;

pub struct IPAddress;

impl Strategy for IPAddress {}
