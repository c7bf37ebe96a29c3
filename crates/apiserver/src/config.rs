//! What the operator decides about the API server.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use client::debug::SetVerbosity;
use client::zpages::Flags;
use jiff::Timestamp;

use crate::aggregation::FrontProxy;
use crate::audit::Auditor;
use crate::enablement::Enablement;
use crate::encryption::Encryption;
use crate::features::Features;
use crate::metadata::Random;
use crate::negotiation::Formats;
use crate::{authentication, authorization, random};

/// The range of ports upstream reserves for Services of type NodePort.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// Upstream's defaults: 400 that read, 200 that write.
const REQUESTS_IN_FLIGHT_MAX: u32 = 600;

/// Every request but the long-running ones is answered within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Tells the time. Replaced in simulations.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

pub struct Config {
    /// Where clients outside reach the server, and what the `kubernetes` Service leads to.
    pub advertise: SocketAddr,
    /// The addresses of Services; the first belongs to the `kubernetes` Service.
    pub service_cidr: Cidr,
    /// Of the other family, on a dual-stack cluster.
    pub secondary_service_cidr: Option<Cidr>,
    pub node_ports: RangeInclusive<u16>,
    /// Whether controllers and scheduler are parts of this process; else they are asked how they are.
    pub runs_control_plane: bool,
    /// How to reach kubelets for logs, exec and port-forward: trusted authority and client certificate.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// What extension servers know this server by; without it they cannot believe whom it names.
    pub front_proxy: Option<FrontProxy>,
    /// The authority of clients' certificates, PEM, as it is made known to extension servers.
    pub client_ca: Option<String>,
    /// Whether a request without credentials is `system:anonymous` (upstream: `--anonymous-auth`).
    pub anonymous_auth: bool,
    /// Bearer tokens from a file.
    pub tokens: auth::tokenfile::TokenFile,
    /// Who is told of requests.
    pub auditor: Option<Arc<Auditor>>,
    /// How many requests are worked on at once, the cheap ones: one that is dear counts for several
    /// (upstream: `--max-requests-inflight` and `--max-mutating-requests-inflight` together).
    pub requests_in_flight_max: u32,
    /// Who else says who makes a request.
    pub authentication: authentication::Config,
    /// Who decides what a user may do.
    pub authorization: authorization::Chain,
    /// What is on that is not by default, and the reverse.
    pub features: Features,
    /// Which encodings are spoken besides those that always are; follows from the features.
    pub formats: Formats,
    /// Which built-in groups, versions and resources are served (`--runtime-config`).
    pub enablement: Enablement,
    /// Sets how much is logged; none where nothing is told of the program (`--profiling`).
    pub set_verbosity: Option<SetVerbosity>,
    /// What is encrypted on disk, and how.
    pub encryption: Option<Arc<Encryption>>,
    /// What a request that does not last may take at most (`--request-timeout`).
    pub request_timeout: Duration,
    /// Which admission plugins run.
    pub admission: admission::Selection,
    /// Parts of this process besides the server, whose figures are told with its own.
    pub components: Vec<Arc<dyn client::metrics::Source>>,
    /// What `/flagz` shows.
    pub flags: Flags,
    pub clock: Clock,
    pub random: Random,
}

impl Config {
    /// Where Services' addresses come from, the primary range first.
    pub fn service_cidrs(&self) -> Vec<Cidr> {
        [self.service_cidr].into_iter().chain(self.secondary_service_cidr).collect()
    }

    /// Turns features on and off.
    pub fn set_features(&mut self, features: Features) {
        self.formats = features.formats();
        self.features = features;
    }

    /// The usual choices for everything that has one.
    pub fn new(advertise: SocketAddr, service_cidr: Cidr) -> Config {
        Config {
            advertise,
            service_cidr,
            secondary_service_cidr: None,
            node_ports: NODE_PORTS,
            runs_control_plane: false,
            kubelet_tls: None,
            front_proxy: None,
            client_ca: None,
            anonymous_auth: true,
            tokens: auth::tokenfile::TokenFile::default(),
            auditor: None,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            authentication: authentication::Config::default(),
            authorization: authorization::Chain::default(),
            features: Features::default(),
            formats: Formats::default(),
            enablement: Enablement::default(),
            set_verbosity: None,
            encryption: None,
            request_timeout: REQUEST_TIMEOUT,
            admission: admission::Selection::default(),
            components: Vec::new(),
            flags: Flags::default(),
            clock: Arc::new(Timestamp::now),
            random: Arc::new(random::fill),
        }
    }
}

/// A range of addresses, `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses such as 10.96.0.0/16")]
pub struct CidrError(String);

impl std::str::FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let (base, prefix) = (base.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
            let bits = if base.is_ipv4() { 32 } else { 128 };
            (prefix <= bits).then_some(Cidr { base, prefix })
        };
        parse().map(Cidr::normalised).ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Cidr {
    fn bits(&self) -> u32 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }

    fn normalised(self) -> Cidr {
        let host_bits = self.bits() - u32::from(self.prefix);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let base = self.address(Self::number(self.base) & mask);
        Cidr { base, ..self }
    }

    /// How many addresses can be given to Services: all but the network's own and the broadcast address.
    pub fn usable(&self) -> u128 {
        let host_bits = self.bits() - u32::from(self.prefix);
        let all = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        all.saturating_sub(if self.base.is_ipv4() { 2 } else { 1 })
    }

    /// The usable address at this place, from 0.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        (index < self.usable()).then(|| self.address(Self::number(self.base) + 1 + index))
    }

    /// Whether the address is one that can be given to a Service.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (number, base) = (Self::number(address), Self::number(self.base));
        address.is_ipv4() == self.base.is_ipv4() && number > base && number - base <= self.usable()
    }

    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_all_but_its_first_and_last_address() {
        let cidr: Cidr = "10.96.0.7/29".parse().expect("parses");
        assert_eq!(cidr.to_string(), "10.96.0.0/29");
        assert_eq!(cidr.usable(), 6);
        assert_eq!(cidr.nth(0), Some("10.96.0.1".parse().expect("an address")));
        assert_eq!(cidr.nth(6), None);
        assert!(cidr.contains("10.96.0.6".parse().expect("an address")));
        assert!(!cidr.contains("10.96.0.7".parse().expect("an address")));
        assert!(!cidr.contains("10.96.0.0".parse().expect("an address")));
        assert!("10.96.0.0".parse::<Cidr>().is_err());
        assert!("10.96.0.0/33".parse::<Cidr>().is_err());
    }
}
