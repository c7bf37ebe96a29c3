//! Links and pages before and after, and pages made of anything.

use proptest::prelude::*;

use super::*;

fn links() -> Links {
    Links {
        prefix: "/api/v1/namespaces/n/services/s/proxy".to_owned(),
        server: "10.0.0.1:80".to_owned(),
        asked_host: "cluster:6443".to_owned(),
    }
}

fn check_page(page: &str, expect: &str) {
    assert_eq!(String::from_utf8_lossy(&links().rewritten_page(page.as_bytes())), expect);
}

#[test]
fn a_link_to_the_same_server_leads_through_the_proxy() {
    const PREFIX: &str = "/api/v1/namespaces/n/services/s/proxy";
    let through = |rest: &str| Some(format!("{PREFIX}{rest}"));
    for (link, expect) in [
        ("/a/b?c=/d#e", through("/a/b?c=/d#e")),
        ("/", through("/")),
        ("/a//b/../c/", through("/a/c/")),
        ("http://10.0.0.1:80/a", through("/a")),
        ("//10.0.0.1:80/a?b", through("/a?b")),
        ("https://cluster:6443/a", Some(format!("https://cluster:6443{PREFIX}/a"))),
        ("a/b", None),
        ("?a", None),
        ("#a", None),
        ("", None),
        ("http://elsewhere/a", None),
        ("//elsewhere/a", None),
        ("mailto:a@b", None),
        ("http://10.0.0.1:80", None),
        ("/api/v1/namespaces/n/services/s/proxy/a", None),
    ] {
        assert_eq!(links().rewritten(link), expect, "{link}");
    }
}

#[test]
fn of_a_page_only_the_links_are_changed() {
    check_page(
        "<!DOCTYPE html><A HREF = '/a?b&amp;c'>x</A>\n<img src=/i.png alt=/no><p title=/no>",
        "<!DOCTYPE html><A HREF = '/api/v1/namespaces/n/services/s/proxy/a?b&amp;c'>x</A>\n\
         <img src=/api/v1/namespaces/n/services/s/proxy/i.png alt=/no><p title=/no>",
    );
    check_page(
        "<form method=post action=\"/f\"><input type=image src=\"rel\" formaction='/g' disabled/>",
        "<form method=post action=\"/api/v1/namespaces/n/services/s/proxy/f\">\
         <input type=image src=\"rel\" formaction='/api/v1/namespaces/n/services/s/proxy/g' disabled/>",
    );
}

#[test]
fn what_only_looks_like_a_tag_is_left() {
    for page in [
        "<!-- <a href=/x> -->",
        "<script>document.write('<a href=\"/x\">')</script>",
        "<style><a href=/x></style>",
        "</a href=/x>",
        "< a href=/x>",
        "<a href",
        "<a href=",
        "<a href='/x",
        "<a hre",
        "1 < 2",
    ] {
        let rewritten = links().rewritten_page(page.as_bytes());
        let unclosed = page.ends_with("'/x");
        assert!(unclosed || rewritten == page.as_bytes(), "{page}");
    }
}

#[test]
fn a_page_goes_on_after_a_script() {
    check_page(
        "<script src=/s.js>\"</scripty>\"</SCRIPT ><a href=/x>",
        "<script src=/api/v1/namespaces/n/services/s/proxy/s.js>\"</scripty>\"</SCRIPT >\
         <a href=/api/v1/namespaces/n/services/s/proxy/x>",
    );
}

proptest! {
    #[test]
    fn any_page_is_taken_and_one_without_links_is_unchanged(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("<".to_owned()), Just(">".to_owned()), Just("</script>".to_owned()), Just("<script ".to_owned()),
                Just("<!--".to_owned()), Just("'".to_owned()), Just("=".to_owned()), Just("<a href".to_owned()),
                Just("\"".to_owned()), "[ -~]{0,8}", "\\PC{0,3}",
            ],
            0..40,
        )
    ) {
        let page: String = pieces.concat();
        let rewritten = links().rewritten_page(page.as_bytes());
        if !page.contains('/') {
            prop_assert_eq!(rewritten, page.as_bytes());
        } else {
            prop_assert!(rewritten.len() + 1 >= page.len() / 2);
        }
    }

    #[test]
    fn a_rewritten_link_is_not_rewritten_again(path in "(/[a-z.]{0,3}){1,5}/?") {
        if let Some(link) = links().rewritten(&path) {
            prop_assert!(link.starts_with('/'));
            if link.starts_with(&links().prefix) {
                prop_assert_eq!(links().rewritten(&link), None);
            }
        }
    }
}
