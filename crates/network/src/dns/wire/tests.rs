//! Reading and writing messages, whole and damaged.

use std::net::Ipv4Addr;

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
    let read =
        |len_max| Forwarded::parse(response(100).encode(&query, len_max), 7, &query.name, kind::A).unwrap();
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
