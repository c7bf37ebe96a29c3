//! What a request is about, read from its method and path alone: any group, resource and subresource, built in or
//! custom, without a list of routes. Follows `RequestInfoFactory.NewRequestInfo`.

use apimachinery::{fields, labels};
use http::Method;

use crate::query::Query;

/// Path segments below a namespace's name that belong to the namespace itself.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// A request, as authorization, routing, metrics and limits see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub path: String,
    /// An API verb for resource requests, else the HTTP method in lower case.
    pub verb: &'static str,
    pub is_resource: bool,
    /// The path ends at `watch` or `proxy`, before it says of what.
    pub is_cut_short: bool,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The name that stands in the path; `name` may come from a field selector.
    pub path_name: String,
    /// What follows the subresource, with its leading slash: the path to proxy to.
    pub tail: String,
    /// What a list, watch or deletecollection is limited to, for authorization; nothing of what cannot be read.
    pub fields: fields::Selector,
    pub labels: labels::Selector,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let mut info =
            RequestInfo { path: path.to_owned(), verb: method_verb(method), ..RequestInfo::default() };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = resource_verb(method);
        let rest = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => {
                info.verb = "watch";
                rest
            }
            ["proxy", rest @ ..] if !rest.is_empty() => {
                info.verb = "proxy";
                rest
            }
            ["watch" | "proxy"] => {
                info.is_cut_short = true;
                return info;
            }
            rest => rest,
        };
        info.read_resource(rest);
        info.refine_verb(query);
        info
    }

    fn read_resource(&mut self, segments: &[&str]) {
        let segments = match segments {
            ["namespaces", namespace, below @ ..] => {
                self.namespace = decode_segment(namespace);
                match below.first() {
                    Some(first) if !NAMESPACE_SUBRESOURCES.contains(first) => below,
                    _ => segments,
                }
            }
            _ => segments,
        };
        let mut parts = segments.iter();
        let mut next = || parts.next().map(|s| decode_segment(s)).unwrap_or_default();
        self.resource = next();
        self.name = next();
        self.path_name = self.name.clone();
        self.subresource = next();
        self.tail = parts.map(|s| format!("/{s}")).collect();
        if self.path.ends_with('/') && (!self.tail.is_empty() || self.subresource == "proxy") {
            self.tail.push('/');
        }
    }

    /// A GET without a name lists or watches; a DELETE without one deletes the collection.
    fn refine_verb(&mut self, query: &Query) {
        if self.name.is_empty() {
            match self.verb {
                "get" if query.flag("watch") => self.verb = "watch",
                "get" => self.verb = "list",
                "delete" => self.verb = "deletecollection",
                _ => {}
            }
        }
        if matches!(self.verb, "list" | "watch" | "deletecollection") {
            self.fields = fields::parse(query.text("fieldSelector")).unwrap_or_default();
            self.labels = labels::parse(query.text("labelSelector")).unwrap_or_default();
            if let Some(name) = self.fields.exact("metadata.name").filter(|_| self.name.is_empty()) {
                self.name = name.to_owned();
            }
        }
    }

    /// Requests that last as long as their client likes; they take no seat among those in flight.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// Upstream's metric label (`CleanScope`).
    pub fn scope(&self) -> &'static str {
        match () {
            () if !self.is_resource => "",
            () if !self.name.is_empty() || self.verb == "create" => "resource",
            () if !self.namespace.is_empty() => "namespace",
            () => "cluster",
        }
    }
}

fn decode_segment(segment: &str) -> String {
    apimachinery::percent::decode(segment, false)
}

fn resource_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "post",
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expect` is `verb group/version namespace resource name subresource tail`, `-` for empty.
    fn check(method: Method, uri: &str, expect: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::parse(&method, path, &Query::parse(query));
        let dash = |s: &str| if s.is_empty() { "-".to_owned() } else { s.to_owned() };
        let found = [
            dash(info.verb),
            format!("{}/{}", info.group, info.version),
            dash(&info.namespace),
            dash(&info.resource),
            dash(&info.name),
            dash(&info.subresource),
            dash(&info.tail),
        ]
        .join(" ");
        assert_eq!(found, expect, "{method} {uri}");
    }

    #[test]
    fn resource_paths_are_read_as_upstream_reads_them() {
        let get = || Method::GET;
        check(get(), "/api/v1/pods", "list /v1 - pods - - -");
        check(get(), "/api/v1/namespaces", "list /v1 - namespaces - - -");
        check(get(), "/api/v1/namespaces/a", "get /v1 a namespaces a - -");
        check(get(), "/api/v1/namespaces/a%2Db", "get /v1 a-b namespaces a-b - -");
        check(get(), "/api/v1/namespaces/a%2Db/pods", "list /v1 a-b pods - - -");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 a namespaces a finalize -");
        check(get(), "/api/v1/namespaces/a/pods", "list /v1 a pods - - -");
        check(get(), "/api/v1/namespaces/a/pods/p", "get /v1 a pods p - -");
        check(get(), "/api/v1/namespaces/a/pods/p/log", "get /v1 a pods p log -");
        check(get(), "/api/v1/nodes/n/proxy/metrics/cadvisor", "get /v1 - nodes n proxy /metrics/cadvisor");
        check(get(), "/apis/apps/v1/namespaces/a/deployments/d/scale", "get apps/v1 a deployments d scale -");
        check(get(), "/api/v1/watch/pods", "watch /v1 - pods - - -");
        check(get(), "/api/v1/watch/namespaces/a/pods/p", "watch /v1 a pods p - -");
        check(get(), "/api/v1/pods?watch=true", "watch /v1 - pods - - -");
        check(get(), "/api/v1/namespaces/a/pods/p?watch=true", "get /v1 a pods p - -");
        check(get(), "/api/v1//pods", "get /v1 - - pods - -");
        check(get(), "/api//v1", "list / - v1 - - -");
        check(get(), "/api/v1/proxy/x", "proxy /v1 - x - - -");
        check(get(), "/api/v1/pods?watch=0", "list /v1 - pods - - -");
        check(get(), "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Dx", "watch /v1 - pods x - -");
        check(Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection /v1 a pods - - -");
        check(Method::POST, "/api/v1/namespaces/a/pods", "create /v1 a pods - - -");
        check(
            get(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 - clusterroles system:node - -",
        );
    }

    #[test]
    fn a_path_must_say_what_to_watch() {
        let check = |path: &str, expect: bool| {
            let info = RequestInfo::parse(&Method::GET, path, &Query::default());
            assert_eq!(info.is_cut_short, expect, "{path}");
        };
        check("/api/v1/watch", true);
        check("/apis/apps/v1/proxy/", true);
        check("/api/v1/watch/pods", false);
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in
            ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v2", "//"]
        {
            assert!(!RequestInfo::parse(&Method::GET, path, &Query::default()).is_resource, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_is_too_strange(path in ".{0,60}", query in ".{0,30}") {
            RequestInfo::parse(&Method::GET, &path, &Query::parse(&query));
            RequestInfo::parse(&Method::GET, &format!("/api/v1/{path}"), &Query::parse(&query));
        }
    }
}
