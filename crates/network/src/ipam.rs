//! Which address a new pod gets: the next free one of the node's pod CIDR after the last one given,
//! so that an address just released rests as long as possible before it names another pod.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Offsets in the pod CIDR: 0 names the network, 1 is the gateway, pods begin here.
const FIRST_POD_OFFSET: u128 = 2;

/// The address by which pods reach their node: the first of the pod CIDR.
pub fn gateway(cidr: IpNet) -> IpAddr {
    at(cidr, 1)
}

/// The next free address, or `None` when all are taken.
pub fn next_address(cidr: IpNet, last: Option<IpAddr>, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    let end = end_offset(cidr);
    let pods = end.checked_sub(FIRST_POD_OFFSET)?;
    let start = last
        .filter(|last| cidr.contains(last))
        .map_or(0, |last| (number(last) - number(cidr.network()) + 1).saturating_sub(FIRST_POD_OFFSET));
    // One more try than there are taken addresses finds a free one if there is any.
    let tries = pods.min(taken.len() as u128 + 1);
    (0..tries)
        .map(|step| at(cidr, FIRST_POD_OFFSET + (start + step) % pods))
        .find(|address| !taken.contains(address))
}

/// One past the last offset a pod may have; an IPv4 network's last address is for broadcast.
fn end_offset(cidr: IpNet) -> u128 {
    let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    if cidr.addr().is_ipv4() { size.saturating_sub(1) } else { size }
}

fn at(cidr: IpNet, offset: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).wrapping_add(offset as u32))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).wrapping_add(offset))),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn pods_begin_after_the_gateway_and_end_before_broadcast() {
        let cidr = net("10.244.0.0/30");
        assert_eq!(gateway(cidr), ip("10.244.0.1"));
        assert_eq!(next_address(cidr, None, &HashSet::new()), Some(ip("10.244.0.2")));
        assert_eq!(next_address(cidr, None, &HashSet::from([ip("10.244.0.2")])), None);
    }

    #[test]
    fn a_released_address_is_not_given_again_at_once() {
        let cidr = net("10.244.1.0/24");
        assert_eq!(next_address(cidr, Some(ip("10.244.1.7")), &HashSet::new()), Some(ip("10.244.1.8")));
        assert_eq!(next_address(cidr, Some(ip("10.244.1.254")), &HashSet::new()), Some(ip("10.244.1.2")));
        assert_eq!(next_address(cidr, Some(ip("192.0.2.1")), &HashSet::new()), Some(ip("10.244.1.2")));
    }

    #[test]
    fn too_small_networks_have_no_pods() {
        for cidr in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/128"] {
            assert_eq!(next_address(net(cidr), None, &HashSet::new()), None, "{cidr}");
        }
        assert_eq!(next_address(net("fd00::/64"), None, &HashSet::new()), Some(ip("fd00::2")));
    }

    proptest! {
        #[test]
        fn all_addresses_are_given_once(prefix in 24u8..=30, last in 0u32..300) {
            let cidr = IpNet::new(ip("10.1.2.0"), prefix).expect("a valid prefix");
            let mut taken = HashSet::new();
            let mut last = Some(at(cidr, u128::from(last)));
            while let Some(address) = next_address(cidr, last, &taken) {
                prop_assert!(cidr.contains(&address) && taken.insert(address));
                last = Some(address);
            }
            prop_assert_eq!(taken.len(), (1 << (32 - prefix)) - 3);
        }
    }
}
