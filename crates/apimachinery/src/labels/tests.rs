//! Selectors, read, printed and matched.

use proptest::prelude::*;

use super::*;
use crate::json;

fn check(selector: &str, labels: &[(&str, &str)], expect: bool) {
    let selector = parse(selector).expect("a selector");
    assert_eq!(selector.matches(labels), expect, "{selector} {labels:?}");
}

#[test]
fn a_selector_matches_when_every_term_does() {
    let labels = [("app", "web"), ("size", "10"), ("empty", "")];
    for yes in [
        "",
        " app = web ",
        "app==web",
        "app!=db",
        "missing!=x",
        "app in (web, db)",
        "app notin (db)",
        "missing notin (db)",
        "app",
        "!missing",
        "size>9",
        "size<11",
        "empty=",
        "empty in (,x)",
        "app=web,size",
        "in notin (in)",
    ] {
        check(yes, &labels, true);
    }
    for no in
        ["app=db", "app!=web", "missing", "!app", "size>10", "app>1", "app notin (web)", "app=web,!size"]
    {
        check(no, &labels, false);
    }
}

#[test]
fn refusals_read_as_upstreams() {
    for (text, expect) in [
        ("a=b,", "found '', expected: identifier after ','"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(parse(text).expect_err("refused").to_string(), expect, "{text}");
    }
    let error = parse("-a=b").expect_err("refused").to_string();
    assert!(
        error.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part"),
        "{error}"
    );
}

#[test]
fn a_structured_selector_means_the_same_as_its_text() {
    let selector: LabelSelector = crate::from_value(json!({
        "matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]
    }))
    .expect("a selector");
    let selector = Selector::try_from(&selector).expect("valid");
    assert_eq!(selector.to_string(), "a in (x,y),b=1");
    assert_eq!(selector.exact("b"), Some("1"));
    assert_eq!(selector.exact("a"), None);
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "[a-c=!<>(), \\tin]{0,24}|.{0,16}") {
        let _parsed = parse(&text).is_ok();
    }

    #[test]
    fn a_selector_reads_back_as_shown(text in "[a-c](=[a-c]?|!=[a-c]| in \\([a-c],[a-c]\\)| notin \\([a-c]\\)|>[0-9])?(,![d-f])?") {
        let selector = parse(&text).expect("in the grammar");
        prop_assert_eq!(&parse(&selector.to_string()).expect("its own text"), &selector);
    }
}
