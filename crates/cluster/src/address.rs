//! Which address this machine is reached by, and what it is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// Addresses for documentation (RFC 5737, RFC 3849): any that are not this machine's own would do.
const ELSEWHERE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ELSEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The address the kernel would use towards the world; `None` on a machine without a route.
/// No packet is sent: connecting a datagram socket only looks the route up.
fn outward(v6: bool) -> Option<IpAddr> {
    let (any, elsewhere): (IpAddr, IpAddr) = match v6 {
        false => (Ipv4Addr::UNSPECIFIED.into(), ELSEWHERE_V4.into()),
        true => (Ipv6Addr::UNSPECIFIED.into(), ELSEWHERE_V6.into()),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(elsewhere, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The node's addresses, one for each family of `ranges` and in their order: those given, or else those towards the
/// world. Without ranges, of IPv4.
pub fn of_node(given: &[IpAddr], ranges: &[IpNet]) -> Vec<IpAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let families: Vec<bool> = ranges.iter().map(|range| range.addr().is_ipv6()).collect();
    let families = if families.is_empty() { &[false][..] } else { &families };
    families.iter().filter_map(|v6| outward(*v6)).collect()
}

/// The machine's name as a node name: lowercase, without what a DNS name cannot hold.
pub fn hostname() -> String {
    let raw = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    node_name(raw.trim())
}

fn node_name(raw: &str) -> String {
    let plain: String = raw
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let plain = plain.trim_matches(['-', '.']);
    if plain.is_empty() { "node".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_node_name() {
        for (raw, expect) in
            [("Web_1.Example.com", "web-1.example.com"), ("-x-", "x"), ("", "node"), ("(none)", "none")]
        {
            assert_eq!(node_name(raw), expect);
        }
    }
}
