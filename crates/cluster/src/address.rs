//! Which address this machine is reached by, and what it is called.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The address the kernel would use towards the world; `None` on a machine without a route.
/// No packet is sent: connecting a datagram socket only looks the route up.
pub fn outward() -> Option<IpAddr> {
    // TEST-NET-1 (RFC 5737): any address that is not this machine's own would do.
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
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
