//! IP addresses and CIDRs as API fields take them since 1.36 (`StrictIPCIDRValidation`): no leading zeros, no
//! IPv4-mapped IPv6. Values an old object already had stay allowed.

use std::net::{IpAddr, Ipv6Addr};

use apimachinery::field::{Error, ErrorList, Path};

use super::At;

/// An address in a field that tolerates forms that are not canonical (follows `IsValidIPForLegacyField`).
pub fn legacy(at: &At, old: &[&str], errors: &mut ErrorList) {
    if old.contains(&at.text()) {
        return;
    }
    if let Err(complaint) = parse(at.text()) {
        errors.push(Error::invalid(&at.path, at.text(), complaint));
    }
}

/// An address that must be in canonical form (follows `IsValidIP`).
pub fn strict(at: &At, errors: &mut ErrorList) {
    match parse(at.text()) {
        Err(complaint) => errors.push(Error::invalid(&at.path, at.text(), complaint)),
        Ok(ip) if ip.to_string() != at.text() => {
            let detail = format!("must be in canonical form (\"{ip}\")");
            errors.push(Error::invalid(&at.path, at.text(), detail));
        }
        Ok(_) => {}
    }
}

/// A subnet (follows `IsValidCIDRForLegacyField`).
pub fn cidr(path: &Path, text: &str, old: &[&str], errors: &mut ErrorList) {
    if old.contains(&text) {
        return;
    }
    if let Err(complaint) = check_cidr(text) {
        errors.push(Error::invalid(path, text, complaint));
    }
}

/// Addresses that no endpoint has (follows `ValidateEndpointIP`).
pub fn endpoint(at: &At, errors: &mut ErrorList) {
    let text = at.text();
    let Some(ip) = parse_sloppy(text) else {
        errors.push(Error::invalid(&at.path, text, "must be a valid IP address"));
        return;
    };
    let mut refuse = |detail: String| errors.push(Error::invalid(&at.path, text, detail));
    if ip.is_unspecified() {
        refuse(format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    if is_link_local(ip) {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if is_link_local_multicast(ip) {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
}

/// The warning about an IPv6 address that is valid but not canonical (follows `GetWarningsForIP`).
pub fn warning(at: &At) -> Option<String> {
    let text = at.text();
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_string() != text => Some(format!(
            "{}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{ip}\")",
            at.path
        )),
        _ => None,
    }
}

/// A subnet as old Go read it: leading zeros and bits beyond the prefix do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// As written, bits beyond the prefix included.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub length: u32,
}

impl Subnet {
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, length) = text.split_once('/')?;
        let (address, length) = (parse_sloppy(address)?, length.parse().ok()?);
        (length <= width(address)).then_some(Subnet { address, length })
    }

    /// The first address, with nothing beyond the prefix.
    pub fn network(&self) -> IpAddr {
        let host = host_bits(self.address, width(self.address) - self.length);
        match self.address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() - u32::try_from(host).unwrap_or_default()).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() - host).into()),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Subnet { address, length: self.length }.network() == self.network()
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A subnet in canonical form (follows `IsValidCIDR`).
pub fn strict_cidr(at: &At, errors: &mut ErrorList) {
    if let Err(complaint) = check_cidr(at.text()) {
        errors.push(Error::invalid(&at.path, at.text(), complaint));
        return;
    }
    let Some(subnet) = Subnet::parse(at.text()) else { return };
    let canonical = format!("{}/{}", subnet.network(), subnet.length);
    if canonical != at.text() {
        let detail = format!("must be in canonical form (\"{canonical}\")");
        errors.push(Error::invalid(&at.path, at.text(), detail));
    }
}

/// An address together with the subnet it is in, in canonical form (follows `IsValidInterfaceAddress`).
pub fn of_interface(at: &At, errors: &mut ErrorList) {
    let Some(Subnet { address, length }) = Subnet::parse(at.text()) else {
        errors.push(at.invalid("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"));
        return;
    };
    let plain = address.to_canonical();
    let canonical = format!("{plain}/{}", length.saturating_sub(width(address) - width(plain)));
    if canonical != at.text() {
        errors.push(at.invalid(format!("must be in canonical form ({canonical:?})")));
    }
}

/// The warnings about a subnet that is not what it should be (follows `GetWarningsForCIDR`).
pub fn cidr_warnings(at: &At) -> Vec<String> {
    let (text, path) = (at.text(), &at.path);
    let Some(subnet) = Subnet::parse(text) else { return Vec::new() };
    let whole = format!("{}/{}", subnet.network(), subnet.length);
    let mut warnings = Vec::new();
    if subnet.network() != subnet.address {
        let single = format!("{}/{}", subnet.address, width(subnet.address));
        warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {whole:?} or {single:?}?)"
        ));
    }
    let address = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    let mapped = matches!(address, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    if address.is_none() || mapped {
        warnings.push(format!("{path}: non-standard CIDR value {text:?} is invalid: use {whole:?}"));
    }
    if warnings.is_empty() && subnet.address.is_ipv6() && whole != text {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({whole:?})"
        ));
    }
    warnings
}

/// Whether this is an address in whatever spelling.
pub fn is_ip(text: &str) -> bool {
    parse_sloppy(text).is_some()
}

pub fn is_ipv6(text: &str) -> bool {
    matches!(parse_sloppy(text), Some(IpAddr::V6(_)))
}

/// Whether there is at least one of each family.
pub fn is_dual_stack(ips: &[&str]) -> bool {
    ips.iter().any(|ip| is_ipv6(ip)) && ips.iter().any(|ip| !is_ipv6(ip))
}

fn parse(text: &str) -> Result<IpAddr, &'static str> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => Err("must not be an IPv4-mapped IPv6 address"),
        Ok(ip) => Ok(ip),
        Err(_) if parse_sloppy(text).is_some() => Err("must not have leading 0s"),
        Err(_) => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    }
}

/// As old Go read addresses: octets may have leading zeros.
fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let octets: Vec<&str> = text.split('.').map(|o| o.trim_start_matches('0')).collect();
    let octets: Vec<&str> = octets.into_iter().map(|o| if o.is_empty() { "0" } else { o }).collect();
    let had_digits = text.split('.').all(|o| !o.is_empty());
    if octets.len() == 4 && had_digits { octets.join(".").parse().ok() } else { None }
}

fn check_cidr(text: &str) -> Result<(), &'static str> {
    const WRONG: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let (address, length) = text.split_once('/').ok_or(WRONG)?;
    let ip = parse_sloppy(address).ok_or(WRONG)?;
    let bits: u32 = length.parse().map_err(|_| WRONG)?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if bits > width || length.starts_with('+') {
        return Err(WRONG);
    }
    if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        return Err("must not have leading 0s in IP or prefix length");
    }
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err("must not have an IPv4-mapped IPv6 address");
    }
    if host_bits(ip, width - bits) != 0 {
        return Err("must not have bits set beyond the prefix length");
    }
    Ok(())
}

/// The lowest `count` bits of the address.
fn host_bits(ip: IpAddr, count: u32) -> u128 {
    let number = match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mask = 1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1);
    number & mask
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => is_link_local_scope(v6),
    }
}

fn is_link_local_scope(ip: Ipv6Addr) -> bool {
    ip.octets()[0] == 0xff && ip.octets()[1] & 0x0f == 0x02
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::Value;

    fn check(rule: impl Fn(&At, &mut ErrorList), text: &str, expect: &str) {
        let value = Value::from(text);
        let mut errors = ErrorList::new();
        rule(&At::new(&value, Path::new("ip")), &mut errors);
        let found = errors.first().map_or("", |e| e.detail.as_str());
        assert!(found.starts_with(expect) && found.is_empty() == expect.is_empty(), "{text}: {found}");
    }

    #[test]
    fn addresses_are_read_strictly() {
        let rule = |at: &At, errors: &mut ErrorList| legacy(at, &[], errors);
        check(rule, "10.0.0.1", "");
        check(rule, "fd00:0::1", "");
        check(rule, "010.0.0.1", "must not have leading 0s");
        check(rule, "::ffff:1.2.3.4", "must not be an IPv4-mapped");
        check(rule, "10.0.0", "must be a valid IP address");
        check(strict, "fd00:0::1", "must be in canonical form (\"fd00::1\")");
    }

    #[test]
    fn endpoints_are_not_on_the_host_itself() {
        check(endpoint, "10.0.0.1", "");
        check(endpoint, "127.0.0.1", "may not be in the loopback range");
        check(endpoint, "0.0.0.0", "may not be unspecified");
        check(endpoint, "169.254.1.1", "may not be in the link-local range");
        check(endpoint, "224.0.0.5", "may not be in the link-local multicast range");
    }

    #[test]
    fn a_subnet_has_no_host_bits() {
        let rule = |at: &At, errors: &mut ErrorList| cidr(&at.path, at.text(), &[], errors);
        check(rule, "10.0.0.0/8", "");
        check(rule, "0.0.0.0/0", "");
        check(rule, "::/0", "");
        check(rule, "10.0.0.1/8", "must not have bits set");
        check(rule, "10.0.0.0/33", "must be a valid CIDR");
        check(rule, "10.0.0.0", "must be a valid CIDR");
        check(rule, "10.0.0.0/08", "must not have leading 0s");
    }
}
