//! Writing messages, with compressed names.

use std::collections::HashMap;

use super::{CLASS_IN, Code, Data, Name, Query, Record, Response, UDP_LEN_MAX, kind};

/// An offset that a compression pointer can hold.
const POINTER_OFFSET_MAX: usize = 0x3fff;

/// Refresh, retry and expire of our SOA: nobody transfers the zone, these are CoreDNS' values.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

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
