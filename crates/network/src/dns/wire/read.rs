//! Reading messages. Whatever arrives, nothing is read past the end and no loop is endless.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CLASS_IN, Code, Data, Edns, HEADER_LEN, Name, Query, Record, kind};

/// A compressed name may jump this often; each jump leads backwards, so more is an attack.
const POINTERS_MAX: usize = 32;

/// Reads a query. `Err` carries the response for what cannot be read, if it deserves one.
pub fn parse_query(bytes: &[u8]) -> Result<Query, Option<Vec<u8>>> {
    let header = bytes.get(..HEADER_LEN).ok_or(None)?;
    if header[2] & 0x80 != 0 {
        return Err(None);
    }
    let malformed = || {
        let mut answer = header.to_vec();
        answer[2] |= 0x80;
        answer[3] = Code::FormatError as u8;
        answer[4..].fill(0);
        Some(answer)
    };
    let mut reader = Reader { bytes, at: HEADER_LEN };
    let query = reader.query().filter(|_| read_u16(bytes, 4) == Some(1));
    query.ok_or_else(malformed)
}

/// A resolver's response, read as far as forwarding needs.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub bytes: Vec<u8>,
    /// Where TTLs are, and what they say.
    ttls: Vec<(usize, u32)>,
    /// What the SOA record, if there is one, says of denials.
    denial_ttl: Option<u32>,
    /// The answers of types we write ourselves, for following an alias.
    pub addresses: Vec<Record>,
}

impl Forwarded {
    /// `None` if it does not answer this question.
    pub fn parse(bytes: Vec<u8>, id: u16, name: &Name, kind: u16) -> Option<Forwarded> {
        let is_response = bytes.get(2)? & 0x80 != 0;
        let mut reader = Reader { bytes: &bytes, at: HEADER_LEN };
        let same_question = read_u16(&bytes, 0)? == id
            && read_u16(&bytes, 4)? == 1
            && reader.name()? == *name
            && reader.u16()? == kind
            && reader.u16()? == CLASS_IN;
        if !is_response || !same_question {
            return None;
        }
        let records = reader.records()?;
        let ttls = records.iter().map(|record| (record.ttl_at, record.ttl)).collect();
        let soa = records.iter().find(|record| record.kind == kind::SOA);
        let denial_ttl =
            soa.and_then(|soa| bytes[soa.data.clone()].last_chunk()).copied().map(u32::from_be_bytes);
        let addresses = records.into_iter().filter_map(|record| address_record(&bytes, record)).collect();
        Some(Forwarded { ttls, denial_ttl, addresses, bytes })
    }

    pub fn is_truncated(&self) -> bool {
        self.bytes[2] & 0x02 != 0
    }

    pub fn code(&self) -> u8 {
        self.bytes[3] & 0xf
    }

    /// Whether it says that there is no such name, or nothing of the type.
    pub fn is_denial(&self) -> bool {
        self.bytes[6..8] == [0, 0]
    }

    /// The shortest time any of its records lives, in seconds; `None` without records. A denial lives no longer than
    /// its SOA says of denials (RFC 2308, section 5).
    pub fn ttl_min(&self) -> Option<u32> {
        let records = self.ttls.iter().map(|(_, ttl)| *ttl).min();
        records
            .map(|ttl| self.denial_ttl.filter(|_| self.is_denial()).map_or(ttl, |minimum| ttl.min(minimum)))
    }

    /// The bytes for a client that asks the same: its id, the name as it spells it, and TTLs less
    /// the seconds the response is old.
    pub fn for_client(&self, query: &Query, age: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&query.id.to_be_bytes());
        let mut at = HEADER_LEN;
        for label in query.name.labels() {
            bytes[at + 1..at + 1 + label.len()].copy_from_slice(label);
            at += 1 + label.len();
        }
        for (at, ttl) in &self.ttls {
            bytes[*at..at + 4].copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
        bytes
    }
}

fn address_record(bytes: &[u8], record: RawRecord) -> Option<Record> {
    let data = &bytes[record.data.clone()];
    let data = match record.kind {
        kind::A => Data::A(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
        kind::AAAA => Data::Aaaa(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
        kind::CNAME => Data::Cname(Reader { bytes, at: record.data.start }.name()?),
        _ => return None,
    };
    Some(Record { name: record.name, ttl: record.ttl, data })
}

pub(super) struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

/// The fixed part of a record, and where its data is.
struct RawRecord {
    name: Name,
    kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    data: std::ops::Range<usize>,
}

impl Edns {
    fn of(record: &RawRecord) -> Option<Edns> {
        let [_, version, high, _] = record.ttl.to_be_bytes();
        (record.kind == kind::OPT).then_some(Edns {
            udp_len: record.class,
            version,
            dnssec: high & 0x80 != 0,
        })
    }
}

impl Reader<'_> {
    fn query(&mut self) -> Option<Query> {
        let (id, flags) = (read_u16(self.bytes, 0)?, read_u16(self.bytes, 2)?);
        let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
        let records: usize =
            [6, 8, 10].into_iter().filter_map(|at| read_u16(self.bytes, at)).map(usize::from).sum();
        let mut edns = None;
        for _ in 0..records {
            edns = Edns::of(&self.record()?).or(edns);
        }
        let opcode = (flags >> 11 & 0xf) as u8;
        Some(Query { id, recursion_desired: flags & 0x100 != 0, opcode, name, kind, class, edns })
    }

    /// The one record there is, if it says what EDNS does.
    pub fn edns(&mut self) -> Option<Edns> {
        Edns::of(&self.record()?)
    }

    pub fn u16(&mut self) -> Option<u16> {
        let value = read_u16(self.bytes, self.at)?;
        self.at += 2;
        Some(value)
    }

    fn name(&mut self) -> Option<Name> {
        let (mut at, mut labels, mut jumps) = (self.at, Vec::new(), 0);
        loop {
            match *self.bytes.get(at)? {
                0 => {
                    if jumps == 0 {
                        self.at = at + 1;
                    }
                    return Name::from_labels(labels);
                }
                length if length & 0xc0 == 0xc0 => {
                    let target = usize::from(read_u16(self.bytes, at)? & 0x3fff);
                    if jumps == 0 {
                        self.at = at + 2;
                    }
                    jumps += 1;
                    if target >= at || jumps > POINTERS_MAX {
                        return None;
                    }
                    at = target;
                }
                length if length & 0xc0 == 0 => {
                    let end = at + 1 + usize::from(length);
                    labels.push(self.bytes.get(at + 1..end)?.to_vec());
                    at = end;
                }
                _ => return None,
            }
        }
    }

    fn record(&mut self) -> Option<RawRecord> {
        let name = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl_at = self.at;
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let length = usize::from(self.u16()?);
        let data = self.at..self.at + length;
        self.bytes.get(data.clone())?;
        self.at = data.end;
        Some(RawRecord { name, kind, class, ttl, ttl_at, data })
    }

    /// All records behind the question, those of EDNS apart.
    fn records(&mut self) -> Option<Vec<RawRecord>> {
        let count: usize =
            [6, 8, 10].into_iter().filter_map(|at| read_u16(self.bytes, at)).map(usize::from).sum();
        let mut records = Vec::new();
        for _ in 0..count {
            let record = self.record()?;
            if record.kind != kind::OPT {
                records.push(record);
            }
        }
        Some(records)
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}
