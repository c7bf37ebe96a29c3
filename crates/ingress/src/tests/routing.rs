//! Which request goes where.

use apimachinery::{Value, json};
use proptest::prelude::*;

use super::{Cluster, all_to};
use crate::backend::Endpoint;
use crate::table::Table;

const SERVICES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Each Service has an endpoint that is told by its port.
fn cluster() -> Cluster {
    let cluster = Cluster::default();
    SERVICES.iter().enumerate().fold(cluster, |cluster, (index, name)| {
        let port = u16::try_from(index).unwrap() + 1;
        cluster.service(name, None, &[([10, 0, 0, 1], port).into()])
    })
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(path_type, path, service): &(&str, &str, &str)| {
        json!({"path": path, "pathType": path_type,
            "backend": {"service": {"name": service, "port": {"name": "http"}}}})
    };
    json!({"host": host, "http": {"paths": paths.iter().map(path).collect::<Vec<_>>()}})
}

/// The Service a request goes to; `-` without endpoints, and empty without a route.
fn service(table: &Table, host: &str, path: &str) -> &'static str {
    let Some(route) = table.find(host, path) else { return "" };
    match route.backend.endpoints.first() {
        Some(Endpoint::Address(address)) => SERVICES[usize::from(address.port()) - 1],
        _ => "-",
    }
}

fn check(cluster: &Cluster, expected: &[(&str, &str, &str)]) {
    let table = cluster.table();
    for (host, path, name) in expected {
        assert_eq!(service(&table, host, path), *name, "{host}{path}");
    }
}

#[test]
fn paths_match_as_the_api_says() {
    let exact =
        cluster().ingress(json!({"rules": [rule("", &[("Exact", "/foo", "a"), ("Exact", "/bar/", "b")])]}));
    check(
        &exact,
        &[("x", "/foo", "a"), ("x", "/foo/", ""), ("x", "/bar", ""), ("x", "/bar/", "b"), ("x", "/FOO", "")],
    );
    let prefix = cluster()
        .ingress(json!({"rules": [rule("", &[("Prefix", "/aaa/bb", "a"), ("Prefix", "/ccc/", "b")])]}));
    check(
        &prefix,
        &[
            ("x", "/aaa/bbb", ""),
            ("x", "/aaa/bb", "a"),
            ("x", "/aaa/bb/", "a"),
            ("x", "/aaa/bb/cc", "a"),
            ("x", "/ccc", "b"),
            ("x", "/ccc/d", "b"),
            ("x", "/cccd", ""),
            ("x", "/", ""),
        ],
    );
    let all = cluster().ingress(json!({"rules": [rule("", &[("Prefix", "/", "a")])]}));
    check(&all, &[("x", "/", "a"), ("x", "/any/thing", "a"), ("", "*", "a")]);
    let own = cluster().ingress(json!({"rules": [rule("", &[("ImplementationSpecific", "", "a")])]}));
    check(&own, &[("x", "/", "a"), ("x", "/x", "a")]);
}

#[test]
fn the_longest_path_wins_and_an_exact_one_before_a_prefix() {
    let paths =
        [("Prefix", "/", "a"), ("Prefix", "/a", "b"), ("Prefix", "/a/b", "c"), ("Exact", "/a/b", "d")];
    let cluster = cluster().ingress(json!({"rules": [rule("", &paths)]}));
    check(&cluster, &[("x", "/a/b", "d"), ("x", "/a/b/", "c"), ("x", "/a/c", "b"), ("x", "/b", "a")]);
}

#[test]
fn an_exact_host_goes_before_a_wildcard_and_that_before_none() {
    let rules = [
        rule("foo.example.org", &[("Prefix", "/x", "a")]),
        rule("*.example.org", &[("Prefix", "/", "b")]),
        rule("", &[("Prefix", "/", "c")]),
    ];
    let cluster = cluster().ingress(json!({"rules": rules}));
    check(
        &cluster,
        &[
            ("foo.example.org", "/x", "a"),
            ("foo.example.org", "/y", "b"),
            ("bar.example.org", "/x", "b"),
            ("baz.bar.example.org", "/x", "c"),
            ("example.org", "/x", "c"),
            ("", "/x", "c"),
        ],
    );
}

#[test]
fn what_matches_nothing_goes_to_the_default() {
    let with_rules = json!({"rules": [rule("a.example.org", &[("Prefix", "/x", "b")])],
        "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}});
    let cluster = cluster().ingress(with_rules).ingress(all_to("c"));
    check(&cluster, &[("a.example.org", "/x", "b"), ("a.example.org", "/y", "a"), ("other.org", "/", "c")]);
}

#[test]
fn of_two_ingresses_with_one_path_the_older_has_it() {
    let of =
        |name| json!({"rules": [rule("a.example.org", &[("Prefix", "/x/", name), ("Exact", "/y", name)])]});
    let cluster = cluster().ingress(of("a")).ingress(of("b"));
    check(&cluster, &[("a.example.org", "/x", "a"), ("a.example.org", "/y", "a")]);
}

#[test]
fn ingresses_of_other_classes_are_not_served() {
    let mut spec = all_to("a");
    spec["ingressClassName"] = "nginx".into();
    check(&cluster().ingress(spec.clone()), &[("x", "/", "")]);
    spec["annotations"] = json!({"kubernetes.io/ingress.class": "cox"});
    check(&cluster().ingress(spec), &[("x", "/", "a")]);
}

#[test]
fn what_an_ingress_names_in_vain_has_no_endpoints() {
    check(&cluster().ingress(all_to("none")), &[("x", "/", "-")]);
    let mut spec = all_to("a");
    spec["defaultBackend"]["service"]["port"] = json!({"number": 81});
    check(&cluster().ingress(spec), &[("x", "/", "-")]);
    check(
        &cluster().ingress(json!({"defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}}})),
        &[("x", "/", "-")],
    );
}

#[test]
fn http_goes_to_https_where_the_host_has_tls() {
    let redirects = |tls: Value, annotations: Value| {
        let rules = [rule("a.example.org", &[("Prefix", "/", "a")])];
        let spec = json!({"rules": rules, "tls": tls, "annotations": annotations});
        let table = cluster().ingress(spec).table();
        table.find("a.example.org", "/").unwrap().redirects_to_https
    };
    let says = |key: &str, value: &str| json!({(format!("nginx.ingress.kubernetes.io/{key}")): value});
    assert!(!redirects(json!([]), json!({})));
    assert!(redirects(json!([{"hosts": ["A.example.org"], "secretName": "s"}]), json!({})));
    assert!(redirects(json!([{"hosts": ["*.example.org"]}]), json!({})));
    assert!(redirects(json!([{}]), json!({})));
    assert!(!redirects(json!([{"hosts": ["b.example.org"]}]), json!({})));
    assert!(!redirects(json!([{}]), says("ssl-redirect", "false")));
    assert!(redirects(json!([]), says("force-ssl-redirect", "true")));
}

/// The API's rules without a table: among all matching paths the best one.
fn by_the_book(paths: &[(bool, String)], request: &str) -> Option<usize> {
    let elements =
        |path: &str| -> Vec<String> { path.trim_end_matches('/').split('/').map(str::to_owned).collect() };
    let matching = paths.iter().enumerate().filter(|(_, (exact, path))| match exact {
        true => path == request,
        false => elements(request).starts_with(&elements(path)),
    });
    // The first of equal ones, which `max_by_key` would not give.
    let rank = |(exact, path): &(bool, String)| (*exact, elements(path).len());
    matching.rev().max_by_key(|(_, path)| rank(path)).map(|(index, _)| index)
}

proptest! {
    #[test]
    fn the_table_finds_what_the_book_says(
        paths in proptest::collection::vec((any::<bool>(), "(/[ab]{1,2}){0,3}/?"), 1..6),
        request in "(/[ab]{1,2}){0,4}/?",
    ) {
        let named: Vec<(&str, &str, &str)> = paths
            .iter()
            .zip(SERVICES)
            .map(|((exact, path), service)| (if *exact { "Exact" } else { "Prefix" }, path.as_str(), service))
            .collect();
        let table = cluster().ingress(json!({"rules": [rule("", &named)]})).table();
        let expected = by_the_book(&paths, &request).map_or("", |index| SERVICES[index]);
        prop_assert_eq!(service(&table, "x", &request), expected);
    }

    #[test]
    fn hostile_names_and_paths_do_no_harm(hosts in proptest::collection::vec(".*", 3), paths in proptest::collection::vec(".*", 3)) {
        let rules: Vec<Value> =
            hosts.iter().zip(&paths).map(|(host, path)| rule(host, &[("Prefix", path, "a"), ("Exact", path, "b")])).collect();
        let table = cluster().ingress(json!({"rules": rules, "tls": [{"hosts": hosts, "secretName": "s"}]})).table();
        for (host, path) in hosts.iter().zip(&paths) {
            table.find(host, path);
            table.certificates.find(Some(host));
        }
    }
}
