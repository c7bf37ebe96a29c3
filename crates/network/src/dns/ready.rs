//! Answers about Services that were given before, as the bytes that were sent. What concerns a Service is forgotten
//! when it or one of its EndpointSlices changes, so that an answer is never older than what the informers know. Names
//! that do not exist are answers too: search paths ask for many.

use std::collections::HashMap;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use client::informer::Delta;
use tokio::sync::mpsc::UnboundedReceiver;

use super::wire::{HEADER_LEN, Question, UDP_LEN_MIN, kind};
use super::zone::Zone;
use crate::service::service_name;

/// Answers kept at once, some 250 bytes each. When there are so many, all are forgotten: who asks for names at random
/// gets no more out of it than to be answered without them.
const ANSWERS_MAX: usize = 65_536;

/// The same for one Service: enough for the names of a thousand pods, few enough to be kept in order.
const ANSWERS_OF_SERVICE_MAX: usize = 4096;

/// The labels that tell a Service: its name and namespace.
const SERVICE_LABELS: usize = 2;

/// Owner as a pointer, type, class, TTL and length, before the address.
const RECORD_HEAD_LEN: usize = 12;

/// The answers, and what tells that they are no longer true.
pub struct Ready {
    /// `svc.DOMAIN`, as sent, in lower case, and of how many labels.
    suffix: Vec<u8>,
    suffix_labels: usize,
    services: UnboundedReceiver<Delta<Service>>,
    slices: UnboundedReceiver<Delta<EndpointSlice>>,
    /// By the Service's name and namespace, as sent, in lower case; each Service's in the order of what is asked.
    by_service: HashMap<Box<[u8]>, Vec<Answer>>,
    count: usize,
}

/// What is asked of a Service: type, whether DNSSEC records are wanted, with EDNS, and what the name has before the
/// Service's.
type Asked<'a> = (u16, Option<bool>, &'a [u8]);

struct Answer {
    kind: u16,
    dnssec: Option<bool>,
    labels: Box<[u8]>,
    message: Box<[u8]>,
    /// How many bytes each of the addresses takes that may come in any order, and how many there are.
    record_len: usize,
    records: usize,
}

impl Ready {
    /// `None` if the zone's domain is too long to have Services.
    pub fn new(zone: &Zone) -> Option<Ready> {
        let suffix = zone.domain().child("svc")?;
        let (services, slices) = zone.changes();
        let suffix_labels = suffix.labels().len();
        let suffix = wire(suffix.labels().iter().map(Vec::as_slice)).chain([0]).collect();
        Some(Ready { suffix, suffix_labels, services, slices, by_service: HashMap::new(), count: 0 })
    }

    /// Writes the answer, if it is known and the client can take it.
    pub fn answer(&self, question: &Question<'_>, len_max: usize, to: &mut Vec<u8>) -> bool {
        let Some((labels, service)) = self.split(question) else { return false };
        let Some(answers) = self.by_service.get(service) else { return false };
        let Ok(found) = answers.binary_search_by(|known| known.asked().cmp(&asked(question, labels))) else {
            return false;
        };
        let fits = answers[found].message.len() <= len_max;
        if fits {
            answers[found].write(question, to);
        }
        fits
    }

    /// Keeps a whole answer that the zone gave just now.
    pub fn keep(&mut self, question: &Question<'_>, message: &[u8]) {
        // Those that are longer depend on what the client can take.
        if message.len() > UDP_LEN_MIN {
            return;
        }
        let Some((labels, service)) = self.split(question) else { return };
        if self.count >= ANSWERS_MAX {
            self.by_service.clear();
            self.count = 0;
        }
        let answers = self.by_service.entry(service.into()).or_default();
        if answers.len() >= ANSWERS_OF_SERVICE_MAX {
            self.count -= answers.len();
            answers.clear();
        }
        let place = answers.partition_point(|known| known.asked() < asked(question, labels));
        answers.insert(place, Answer::of(question, labels, message));
        self.count += 1;
    }

    /// Whether an answer to this question can be kept: it is about a Service.
    pub fn concerns(&self, question: &Question<'_>) -> bool {
        self.split(question).is_some()
    }

    fn split<'q>(&self, question: &'q Question<'_>) -> Option<(&'q [u8], &'q [u8])> {
        question.split(&self.suffix, self.suffix_labels, SERVICE_LABELS)
    }

    /// Forgets what is no longer true, as far as it is known now.
    pub fn take_changes(&mut self) {
        while let Ok(delta) = self.services.try_recv() {
            self.forget_service(&delta);
        }
        while let Ok(delta) = self.slices.try_recv() {
            self.forget_slice(&delta);
        }
    }

    /// Forgets as soon as there is a change. Cancel safe.
    pub async fn changed(&mut self) {
        tokio::select! {
            Some(delta) = self.services.recv() => self.forget_service(&delta),
            Some(delta) = self.slices.recv() => self.forget_slice(&delta),
            else => std::future::pending().await,
        }
    }

    fn forget_service(&mut self, delta: &Delta<Service>) {
        let metadata = &delta.object().metadata;
        self.forget(&metadata.namespace, &metadata.name);
    }

    fn forget_slice(&mut self, delta: &Delta<EndpointSlice>) {
        let before = if let Delta::Updated { old, .. } = delta { Some(old) } else { None };
        for slice in before.into_iter().chain([delta.object()]) {
            if let Some(service) = service_name(slice) {
                self.forget(&slice.metadata.namespace, service);
            }
        }
    }

    fn forget(&mut self, namespace: &str, service: &str) {
        if self.count > 0 {
            let key: Vec<u8> = wire([service.as_bytes(), namespace.as_bytes()].into_iter()).collect();
            self.count -= self.by_service.remove(key.as_slice()).map_or(0, |answers| answers.len());
        }
    }
}

fn asked<'a>(question: &Question<'_>, labels: &'a [u8]) -> Asked<'a> {
    (question.kind, question.edns.map(|edns| edns.dnssec), labels)
}

impl Answer {
    fn asked(&self) -> Asked<'_> {
        (self.kind, self.dnssec, &self.labels)
    }

    fn of(question: &Question<'_>, labels: &[u8], message: &[u8]) -> Answer {
        let count = usize::from(u16::from_be_bytes([message[6], message[7]]));
        let address_len = match question.kind {
            kind::A => 4,
            kind::AAAA => 16,
            _ => 0,
        };
        let (kind, dnssec, labels) = asked(question, labels);
        Answer {
            kind,
            dnssec,
            labels: labels.into(),
            message: message.into(),
            record_len: RECORD_HEAD_LEN + address_len,
            records: if address_len == 0 { 0 } else { count },
        }
    }

    /// With the client's id, its wish for recursion, the name as it spells it, and another address first each time.
    fn write(&self, question: &Question<'_>, to: &mut Vec<u8>) {
        let repeated = question.repeated();
        let behind = HEADER_LEN + repeated.len();
        to.extend_from_slice(&question.id().to_be_bytes());
        to.push(self.message[2] & !1 | u8::from(question.recursion_desired()));
        to.extend_from_slice(&self.message[3..HEADER_LEN]);
        to.extend_from_slice(repeated);
        to.extend_from_slice(&self.message[behind..]);
        if self.records > 1 {
            let turn = usize::from(question.id()) % self.records;
            to[behind..behind + self.records * self.record_len].rotate_left(turn * self.record_len);
        }
    }
}

/// Labels as sent, in lower case. Those of Kubernetes' names are never longer than a label may be.
fn wire<'a>(labels: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = u8> {
    labels.flat_map(|label| [label.len() as u8].into_iter().chain(label.iter().map(u8::to_ascii_lowercase)))
}
