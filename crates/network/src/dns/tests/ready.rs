//! What is kept of answers is what the resolver would answer again.

use super::World;
use crate::dns::ready::Ready;
use crate::dns::resolver::Resolver;
use crate::dns::wire::{Edns, Query, Question, TCP_LEN_MAX, UDP_LEN_MAX, encode_query, kind, parse_query};
use crate::dns::{Name, Upstreams};
use proptest::prelude::*;

fn message(id: u16, name: &str, kind: u16, dnssec: Option<bool>) -> Vec<u8> {
    encode_query(id, &Name::parse(name).expect("a name"), kind, dnssec)
}

#[test]
fn a_kept_answer_is_the_one_that_would_be_given() {
    let world = World::with_services();
    let resolver = Resolver::new(world.zone.clone(), Upstreams::new("/nowhere".into(), vec![]).into());
    let mut ready = Ready::new(&world.zone).expect("a domain of ordinary length");
    ready.take_changes();
    let names =
        ["web", "redis", "redis-0.redis", "_http._tcp.web", "_redis._tcp.redis", "absent", "b.a.absent"];
    let kinds = [kind::A, kind::AAAA, kind::SRV, kind::TXT];
    for (name, kind) in names.iter().flat_map(|name| kinds.map(|kind| (name, kind))) {
        for dnssec in [None, Some(false), Some(true)] {
            let first = message(0, &format!("{name}.default.svc.cluster.local"), kind, dnssec);
            let question = Question::read(&first).expect("a plain question");
            let mut kept = Vec::new();
            assert!(!ready.answer(&question, UDP_LEN_MAX, &mut kept), "not asked before");
            let query = parse_query(&first).expect("a question");
            ready.keep(&question, &resolver.answer_at_once(&query, TCP_LEN_MAX).expect("our own name"));
            let again = message(3, &format!("{name}.DEFAULT.svc.Cluster.local"), kind, dnssec);
            assert!(ready.answer(&Question::read(&again).expect("a plain question"), UDP_LEN_MAX, &mut kept));
            let query = parse_query(&again).expect("a question");
            assert_eq!(resolver.answer_at_once(&query, UDP_LEN_MAX), Some(kept), "{name} {kind} {dnssec:?}");
        }
    }
}

#[test]
fn only_names_of_services_are_kept() {
    let world = World::with_services();
    let ready = Ready::new(&world.zone).expect("a domain of ordinary length");
    let check = |name: &str, expected| {
        let message = message(0, name, kind::A, None);
        assert_eq!(ready.concerns(&Question::read(&message).expect("a question")), expected, "{name}");
    };
    check("web.default.svc.cluster.local", true);
    check("a.b.c.default.SVC.cluster.local", true);
    for other in ["default.svc.cluster.local", "svc.cluster.local", "10-0-0-1.default.pod.cluster.local"] {
        check(other, false);
    }
    check("web.default.svc.cluster.local.example.org", false);
    check("web.default.xsvc.cluster.local", false);
}

/// Every field of a plain question, as the careful reader sees it.
fn plain(query: &Query) -> (u16, bool, u16, Option<Edns>) {
    (query.id, query.recursion_desired, query.kind, query.edns)
}

proptest! {
    #[test]
    fn a_plain_question_reads_as_the_careful_reader_reads_it(
        labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,63}", 0..6),
        id: u16, kind in 1u16..300, dnssec: Option<bool>, damage in proptest::option::of((0usize..80, any::<u8>())),
    ) {
        let Some(name) = Name::parse(&labels.join(".")) else { return Ok(()) };
        let mut bytes = encode_query(id, &name, kind, dnssec);
        if let Some((at, byte)) = damage && at < bytes.len() {
            bytes[at] = byte;
        }
        if let Some(question) = Question::read(&bytes) {
            let query = parse_query(&bytes).expect("whatever is plain can be read");
            let read = (question.id(), question.recursion_desired(), question.kind, question.edns);
            prop_assert_eq!(read, plain(&query));
            prop_assert_eq!((query.opcode, query.class), (0, 1));
            let spelt: Vec<u8> = query.name.labels().iter().flat_map(|label| [&[label.len() as u8], &label[..]].concat()).collect();
            prop_assert_eq!(&question.repeated()[..spelt.len()], &spelt[..]);
        } else if damage.is_none() {
            prop_assert!(kind == crate::dns::wire::kind::OPT, "a plain question is not read");
        }
    }
}
