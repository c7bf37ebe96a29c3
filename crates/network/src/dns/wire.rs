//! Messages as RFC 1035 (and 2782, 3596, 6891) lay them out: reading queries, writing responses,
//! and the little that forwarding needs to know of a response.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Name;

pub const HEADER_LEN: usize = 12;

/// What a client without EDNS takes over UDP (RFC 1035), and the most we send to any: what passes
/// every link without fragments (DNS flag day 2020).
pub const UDP_LEN_MIN: usize = 512;
pub const UDP_LEN_MAX: usize = 1232;

/// The most a TCP length prefix can say.
pub const TCP_LEN_MAX: usize = 65_535;

/// A compressed name may jump this often; each jump leads backwards, so more is an attack.
const POINTERS_MAX: usize = 32;

/// An offset that a compression pointer can hold.
const POINTER_OFFSET_MAX: usize = 0x3fff;

const CLASS_IN: u16 = 1;

/// Record types.
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
}

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NameError = 3,
    NotImplemented = 4,
    Refused = 5,
    /// Needs EDNS: its upper bits travel there.
    BadVersion = 16,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    pub recursion_desired: bool,
    pub opcode: u8,
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// What the client's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub udp_len: u16,
    pub version: u8,
    pub dnssec: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: Name,
    /// Seconds.
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(Name),
    Ns(Name),
    Ptr(Name),
    Txt(String),
    Srv { priority: u16, weight: u16, port: u16, target: Name },
    Soa { primary: Name, mailbox: Name, serial: u32, minimum: u32 },
}

/// What we answer; the question is repeated from the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub code: Code,
    /// We are the source of the data, not a resolver that passed it on.
    pub authoritative: bool,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

impl Response {
    pub fn of(code: Code) -> Response {
        Response { code, authoritative: false, answers: vec![], authority: vec![], additional: vec![] }
    }

    /// The bytes to send, at most `len_max`; what does not fit is left out and marked as truncated.
    pub fn encode(&self, query: &Query, len_max: usize) -> Vec<u8> {
        let whole = self.write(query, true);
        if whole.len() <= len_max {
            return whole;
        }
        let without_additional = Response { additional: vec![], ..self.clone() };
        let shorter = without_additional.write(query, true);
        if shorter.len() <= len_max {
            return shorter;
        }
        Response { answers: vec![], authority: vec![], ..without_additional }.write(query, false)
    }

    fn write(&self, query: &Query, complete: bool) -> Vec<u8> {
        let mut writer = Writer::default();
        let flags = 0x8000
            | u16::from(query.opcode) << 11
            | u16::from(self.authoritative) << 10
            | u16::from(!complete) << 9
            | u16::from(query.recursion_desired) << 8
            | 0x0080
            | self.code as u16 & 0xf;
        let additional = self.additional.len() + usize::from(query.edns.is_some());
        let counts = [1, self.answers.len(), self.authority.len(), additional];
        writer.u16(query.id);
        writer.u16(flags);
        counts.into_iter().for_each(|count| writer.u16(count as u16));
        writer.name(&query.name, true);
        writer.u16(query.kind);
        writer.u16(query.class);
        for record in self.answers.iter().chain(&self.authority).chain(&self.additional) {
            writer.record(record);
        }
        if let Some(edns) = query.edns {
            writer.opt(self.code, edns.dnssec);
        }
        writer.bytes
    }
}

impl Data {
    pub fn kind(&self) -> u16 {
        match self {
            Data::A(_) => kind::A,
            Data::Aaaa(_) => kind::AAAA,
            Data::Cname(_) => kind::CNAME,
            Data::Ns(_) => kind::NS,
            Data::Ptr(_) => kind::PTR,
            Data::Txt(_) => kind::TXT,
            Data::Srv { .. } => kind::SRV,
            Data::Soa { .. } => kind::SOA,
        }
    }
}

/// Refresh, retry and expire of our SOA: nobody transfers the zone, these are CoreDNS' values.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Where names were written before, by their text.
    offsets: HashMap<String, usize>,
}

impl Writer {
    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn name(&mut self, name: &Name, compress: bool) {
        for depth in 0..name.labels().len() {
            let rest =
                Name::from_labels(name.labels()[depth..].to_vec()).expect("part of a name").to_string();
            if let Some(offset) = self.offsets.get(&rest).filter(|_| compress) {
                self.u16(0xc000 | *offset as u16);
                return;
            }
            if self.bytes.len() <= POINTER_OFFSET_MAX {
                self.offsets.entry(rest).or_insert(self.bytes.len());
            }
            let label = &name.labels()[depth];
            self.bytes.push(label.len() as u8);
            self.bytes.extend_from_slice(label);
        }
        self.bytes.push(0);
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name, true);
        self.u16(record.data.kind());
        self.u16(CLASS_IN);
        self.u32(record.ttl);
        let length_at = self.bytes.len();
        self.u16(0);
        self.data(&record.data);
        let length = (self.bytes.len() - length_at - 2) as u16;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(address) => self.bytes.extend_from_slice(&address.octets()),
            Data::Aaaa(address) => self.bytes.extend_from_slice(&address.octets()),
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => self.name(name, true),
            Data::Txt(text) => {
                let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
                self.bytes.push(text.len() as u8);
                self.bytes.extend_from_slice(text);
            }
            Data::Srv { priority, weight, port, target } => {
                [*priority, *weight, *port].into_iter().for_each(|value| self.u16(value));
                // RFC 2782 forbids compression here.
                self.name(target, false);
            }
            Data::Soa { primary, mailbox, serial, minimum } => {
                self.name(primary, true);
                self.name(mailbox, true);
                self.u32(*serial);
                SOA_TIMES.into_iter().for_each(|value| self.u32(value));
                self.u32(*minimum);
            }
        }
    }

    fn opt(&mut self, code: Code, dnssec: bool) {
        self.bytes.push(0);
        self.u16(kind::OPT);
        self.u16(UDP_LEN_MAX as u16);
        self.bytes.extend_from_slice(&[(code as u16 >> 4) as u8, 0]);
        self.u16(u16::from(dnssec) << 15);
        self.u16(0);
    }
}

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

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
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

impl Reader<'_> {
    fn query(&mut self) -> Option<Query> {
        let (id, flags) = (read_u16(self.bytes, 0)?, read_u16(self.bytes, 2)?);
        let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
        let records: usize =
            [6, 8, 10].into_iter().filter_map(|at| read_u16(self.bytes, at)).map(usize::from).sum();
        let mut edns = None;
        for _ in 0..records {
            let record = self.record()?;
            if record.kind == kind::OPT {
                let [_, version, high, _] = record.ttl.to_be_bytes();
                edns = Some(Edns { udp_len: record.class, version, dnssec: high & 0x80 != 0 });
            }
        }
        let opcode = (flags >> 11 & 0xf) as u8;
        Some(Query { id, recursion_desired: flags & 0x100 != 0, opcode, name, kind, class, edns })
    }

    fn u16(&mut self) -> Option<u16> {
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

/// A query of our own to another resolver, with EDNS if `dnssec` says whether such records are wanted.
pub fn encode_query(id: u16, name: &Name, kind: u16, dnssec: Option<bool>) -> Vec<u8> {
    let mut writer = Writer::default();
    [id, 0x0100, 1, 0, 0, u16::from(dnssec.is_some())].into_iter().for_each(|value| writer.u16(value));
    writer.name(name, true);
    writer.u16(kind);
    writer.u16(CLASS_IN);
    if let Some(dnssec) = dnssec {
        writer.opt(Code::NoError, dnssec);
    }
    writer.bytes
}

/// A resolver's response, read as far as forwarding needs.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub bytes: Vec<u8>,
    /// Where TTLs are, and what they say.
    ttls: Vec<(usize, u32)>,
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
        let addresses = records.into_iter().filter_map(|record| address_record(&bytes, record)).collect();
        Some(Forwarded { ttls, addresses, bytes })
    }

    pub fn is_truncated(&self) -> bool {
        self.bytes[2] & 0x02 != 0
    }

    pub fn code(&self) -> u8 {
        self.bytes[3] & 0xf
    }

    /// The shortest time any of its records lives, in seconds; `None` without records.
    pub fn ttl_min(&self) -> Option<u32> {
        self.ttls.iter().map(|(_, ttl)| *ttl).min()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn query(text: &str, kind: u16) -> Query {
        parse_query(&encode_query(7, &name(text), kind, Some(false))).expect("our own query")
    }

    fn response(count: u8) -> Response {
        let answers = (0..count).map(|last| Record {
            name: name("web.default.svc.cluster.local"),
            ttl: 5,
            data: Data::A(Ipv4Addr::new(10, 244, 0, last)),
        });
        Response { answers: answers.collect(), ..Response::of(Code::NoError) }
    }

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let query = query("Web.Default", kind::SRV);
        assert_eq!((query.id, query.kind, query.recursion_desired), (7, kind::SRV, true));
        assert_eq!(query.name, name("web.default"));
        assert_eq!(query.edns.map(|edns| edns.udp_len), Some(UDP_LEN_MAX as u16));
    }

    #[test]
    fn names_are_compressed_and_read_back() {
        let query = query("web.default.svc.cluster.local", kind::A);
        let bytes = response(2).encode(&query, UDP_LEN_MAX);
        let question_len = HEADER_LEN + query.name.to_string().len() + 1 + 4;
        assert_eq!(bytes.len(), question_len + 2 * 16 + 11, "each answer points to the question's name");
        let read = Forwarded::parse(bytes, 7, &query.name, kind::A).expect("it answers the question");
        assert_eq!(read.addresses, response(2).answers);
        assert_eq!(read.ttl_min(), Some(5));
        let again = Query { id: 9, name: name("WEB.default.svc.cluster.local"), ..query };
        let later = read.for_client(&again, 2);
        assert_eq!(&later[HEADER_LEN..HEADER_LEN + 4], b"\x03WEB", "spelt as asked");
        assert_eq!(Forwarded::parse(later, 9, &again.name, kind::A).unwrap().ttl_min(), Some(3));
    }

    #[test]
    fn what_does_not_fit_is_marked_as_truncated() {
        let query = query("web.default.svc.cluster.local", kind::A);
        let read = |len_max| {
            Forwarded::parse(response(100).encode(&query, len_max), 7, &query.name, kind::A).unwrap()
        };
        assert!(read(UDP_LEN_MAX).is_truncated() && read(UDP_LEN_MAX).addresses.is_empty());
        assert!(!read(TCP_LEN_MAX).is_truncated() && read(TCP_LEN_MAX).addresses.len() == 100);
    }

    #[test]
    fn a_response_is_never_answered_and_rubbish_is_a_format_error() {
        let mut bytes = encode_query(7, &name("a"), kind::A, None);
        bytes.truncate(HEADER_LEN + 1);
        let refused = parse_query(&bytes).expect_err("cut short").expect("worth an answer");
        assert_eq!(refused[..4], [0, 7, 0x81, Code::FormatError as u8]);
        bytes[2] |= 0x80;
        assert_eq!(parse_query(&bytes), Err(None));
        assert_eq!(parse_query(&[0; 5]), Err(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            parse_query(&bytes).ok();
            if let Ok(query) = parse_query(&bytes) {
                Forwarded::parse(response(3).encode(&query, UDP_LEN_MIN), query.id, &query.name, query.kind);
            }
            Forwarded::parse(bytes, 0, &Name::default(), 1);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..90, value: u8) {
            let query = query("web.default.svc.cluster.local", kind::A);
            let mut bytes = response(3).encode(&query, UDP_LEN_MAX);
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
            Forwarded::parse(bytes, 7, &query.name, kind::A);
        }
    }
}
