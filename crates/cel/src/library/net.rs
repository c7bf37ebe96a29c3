//! Addresses and prefixes. Follows upstream's `library.IP` and `library.CIDR`.

use std::net::IpAddr;

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("ip(string) net.IP", |args| parsed(text(args, 0)?).map(Val::Ip)),
    ("isIP(string) bool", |args| Ok(Val::Bool(parsed(text(args, 0)?).is_ok()))),
    ("ip.isCanonical(string) bool", |args| {
        let told = text(args, 0)?;
        Ok(Val::Bool(parsed(told)?.to_string() == told))
    }),
    ("net.IP: family() int", |args| Ok(Val::Int(if address(args)?.is_ipv4() { 4 } else { 6 }))),
    ("net.IP: isUnspecified() bool", |args| Ok(Val::Bool(address(args)?.is_unspecified()))),
    ("net.IP: isLoopback() bool", |args| Ok(Val::Bool(address(args)?.is_loopback()))),
    ("net.IP: isLinkLocalMulticast() bool", |args| Ok(Val::Bool(is_link_local_multicast(address(args)?)))),
    ("net.IP: isLinkLocalUnicast() bool", |args| Ok(Val::Bool(is_link_local(address(args)?)))),
    ("net.IP: isGlobalUnicast() bool", |args| Ok(Val::Bool(is_global(address(args)?)))),
    ("cidr(string) net.CIDR", |args| prefix(text(args, 0)?).map(|(address, bits)| Val::Cidr(address, bits))),
    ("isCIDR(string) bool", |args| Ok(Val::Bool(prefix(text(args, 0)?).is_ok()))),
    ("net.CIDR: containsIP(string) bool", contains_ip),
    ("net.CIDR: containsIP(net.IP) bool", contains_ip),
    ("net.CIDR: containsCIDR(string) bool", contains_cidr),
    ("net.CIDR: containsCIDR(net.CIDR) bool", contains_cidr),
    ("net.CIDR: ip() net.IP", |args| Ok(Val::Ip(cidr(args)?.0))),
    ("net.CIDR: prefixLength() int", |args| Ok(Val::Int(cidr(args)?.1.into()))),
    ("net.CIDR: masked() net.CIDR", |args| {
        let (address, bits) = cidr(args)?;
        Ok(Val::Cidr(masked(address, bits), bits))
    }),
];

/// Zones and IPv4 in IPv6 are refused, as upstream does.
fn parsed(text: &str) -> Result<IpAddr, EvalError> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed").into())
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP").into()),
    }
}

fn prefix(text: &str) -> Result<(IpAddr, u8), EvalError> {
    let invalid = || {
        EvalError::from(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?})"
        ))
    };
    let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
    let address = parsed(address).map_err(|_| invalid())?;
    let is_plain = bits.bytes().all(|c| c.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    let bits: u8 = bits.parse().map_err(|_| invalid())?;
    if is_plain && bits <= width(address) { Ok((address, bits)) } else { Err(invalid()) }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn address(args: &[Val<'_>]) -> Result<IpAddr, EvalError> {
    match &args[0] {
        Val::Ip(address) => Ok(*address),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn cidr(args: &[Val<'_>]) -> Result<(IpAddr, u8), EvalError> {
    match &args[0] {
        Val::Cidr(address, bits) => Ok((*address, *bits)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn holds(outer: (IpAddr, u8), inner: IpAddr) -> bool {
    outer.0.is_ipv4() == inner.is_ipv4() && masked(inner, outer.1) == masked(outer.0, outer.1)
}

fn contains_ip<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let inner = match &args[1] {
        Val::Ip(address) => *address,
        _ => parsed(text(args, 1)?)?,
    };
    Ok(Val::Bool(holds(cidr(args)?, inner)))
}

fn contains_cidr<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let (inner, bits) = match &args[1] {
        Val::Cidr(address, bits) => (*address, *bits),
        _ => prefix(text(args, 1)?)?,
    };
    let outer = cidr(args)?;
    Ok(Val::Bool(outer.1 <= bits && holds(outer, inner)))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_global(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !is_broadcast && !is_special && !is_link_local(address)
}
