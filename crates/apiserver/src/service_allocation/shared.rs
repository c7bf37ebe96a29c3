//! Where several servers give out addresses and ports over one etcd: what changes there together with a Service, so that
//! nothing is given twice. An address is taken by its IPAddress, which must not be there before; node ports by upstream's
//! table of them, which must be as it was when they were found to be free. Follows the `ipallocator`, and the
//! `allocator/storage` of node ports with its key; a Service and what it takes are one transaction here.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::resource;
use apimachinery::codec::protobuf;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use store::{Also, CodecError, CommitError, Draft, Key};

use super::Holding;
use crate::draft::draft;
use crate::metadata::{self, Random};
use crate::upkeep;

/// Where upstream has the table of node ports.
pub const NODE_PORTS: &str = "ranges/servicenodeports";

fn key(address: IpAddr) -> Key {
    Key::new(upkeep::storage(resource::IP_ADDRESSES), "", address.to_string())
}

/// What changes with a Service that has held `old` and holds `new` from now on. `service` has the new ones.
pub fn addresses(
    service: &Value,
    old: &Holding,
    new: &Holding,
    now: Timestamp,
    random: &Random,
) -> Vec<Also> {
    let taken = new.addresses.iter().filter(|address| !old.addresses.contains(address));
    let freed = old.addresses.iter().filter(|address| !new.addresses.contains(address));
    let taken = taken.map(|address| Also::Create(key(*address), ip_address(*address, service, now, random)));
    taken.chain(freed.map(|address| Also::Remove(key(*address)))).collect()
}

fn ip_address(address: IpAddr, service: &Value, now: Timestamp, random: &Random) -> Draft {
    let mut object = upkeep::ip_address(address, service);
    metadata::fill_new(&mut object, metadata::new_uid(random), now).expect("it has metadata");
    draft(upkeep::row(resource::IP_ADDRESSES), &object)
}

/// The table of node ports with those that are held, in place of the one that was seen.
pub fn node_ports(
    range: &RangeInclusive<u16>,
    held: impl Iterator<Item = u16>,
    seen: store::Revision,
) -> Result<Also, CommitError> {
    let object = json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {},
        "range": format!("{}-{}", range.start(), range.end()), "data": BASE64.encode(bitmap(range, held))});
    let root = api::schema::type_id("io.k8s.api.core.v1.RangeAllocation");
    let value: Bytes = protobuf::encode(api::schema(), root, &object)
        .map_err(|error| CommitError::Encode(Arc::new(CodecError(error.to_string()))))?;
    Ok(Also::Replace { path: NODE_PORTS.to_owned(), seen, value })
}

/// A bit per port of the range, as the bytes of a big number whose lowest bit is the first port (`big.Int.Bytes`).
fn bitmap(range: &RangeInclusive<u16>, held: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut bytes = vec![0u8; range.len().div_ceil(8)];
    for port in held.filter(|port| range.contains(port)) {
        let bit = usize::from(port - range.start());
        let place = bytes.len() - 1 - bit / 8;
        bytes[place] |= 1 << (bit % 8);
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.split_off(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_the_bits_of_a_big_number() {
        let check = |held: &[u16], expect: &[u8]| {
            assert_eq!(bitmap(&(30000..=32767), held.iter().copied()), expect, "{held:?}");
        };
        check(&[], &[]);
        check(&[30000], &[1]);
        check(&[30007, 30001], &[0x82]);
        check(&[30008, 30000], &[1, 1]);
        check(&[80, 30009], &[2, 0]);
        assert_eq!(bitmap(&(30000..=32767), [32767].into_iter())[0], 0x80);
    }
}
