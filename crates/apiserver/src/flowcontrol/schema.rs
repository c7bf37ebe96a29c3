//! Which requests a FlowSchema is for, and which flow of it each belongs to. Follows `rule.go` of `flowcontrol`.

use std::hash::{BuildHasher, Hash, Hasher};

use apimachinery::Value;
use apimachinery::meta::str_at;
use auth::UserInfo;
use auth::user::SERVICE_ACCOUNT_USER_PREFIX;

use crate::request_info::RequestInfo;

const ALL: &str = "*";

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    /// All requests are one flow.
    Nothing,
    User,
    Namespace,
}

#[derive(Clone, Debug)]
pub struct FlowSchema {
    pub name: String,
    pub uid: String,
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Clone, Debug)]
enum Subject {
    User(String),
    Group(String),
    /// What follows `system:serviceaccount:`; ends in a colon for all of a namespace.
    ServiceAccount(String),
}

#[derive(Clone, Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

impl FlowSchema {
    pub fn of(object: &Value) -> FlowSchema {
        let spec = &object["spec"];
        FlowSchema {
            name: str_at(object, &["metadata", "name"]).to_owned(),
            uid: str_at(object, &["metadata", "uid"]).to_owned(),
            level: level_of(object).to_owned(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or_default(),
            distinguisher: match str_at(spec, &["distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: items(&spec["rules"]).map(Rule::of).collect(),
        }
    }

    /// Those with the lowest go first.
    pub fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(info, user))
    }

    /// Tells the flow of a request from others.
    pub fn flow(&self, info: &RequestInfo, user: &UserInfo, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        self.name.hash(&mut state);
        self.distinguished(info, user).hash(&mut state);
        state.finish()
    }

    /// What sets the flow of a request apart.
    pub fn distinguished<'a>(&self, info: &'a RequestInfo, user: &'a UserInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

/// The level that a FlowSchema names.
pub fn level_of(object: &Value) -> &str {
    str_at(object, &["spec", "priorityLevelConfiguration", "name"])
}

impl Rule {
    fn of(object: &Value) -> Rule {
        Rule {
            subjects: items(&object["subjects"]).filter_map(Subject::of).collect(),
            resources: items(&object["resourceRules"]).map(ResourceRule::of).collect(),
            paths: items(&object["nonResourceRules"]).map(PathRule::of).collect(),
        }
    }

    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let what = match info.is_resource {
            true => self.resources.iter().any(|rule| rule.matches(info)),
            false => self.paths.iter().any(|rule| rule.matches(info)),
        };
        what && self.subjects.iter().any(|subject| subject.matches(user))
    }
}

impl Subject {
    fn of(object: &Value) -> Option<Subject> {
        let name = |of: &str| str_at(&object[of], &["name"]).to_owned();
        match str_at(object, &["kind"]) {
            "User" => Some(Subject::User(name("user"))),
            "Group" => Some(Subject::Group(name("group"))),
            "ServiceAccount" => {
                let namespace = str_at(object, &["serviceAccount", "namespace"]);
                let name = name("serviceAccount");
                let name = if name == ALL { "" } else { &name };
                Some(Subject::ServiceAccount(format!("{namespace}:{name}")))
            }
            _ => None,
        }
    }

    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User(name) => name == ALL || *name == user.name,
            Subject::Group(name) => name == ALL || user.is_in(name),
            Subject::ServiceAccount(wanted) => {
                user.name.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX).is_some_and(|account| {
                    if wanted.ends_with(':') { account.starts_with(wanted) } else { account == wanted }
                })
            }
        }
    }
}

impl ResourceRule {
    fn of(object: &Value) -> ResourceRule {
        ResourceRule {
            verbs: texts(&object["verbs"]),
            groups: texts(&object["apiGroups"]),
            resources: texts(&object["resources"]),
            namespaces: texts(&object["namespaces"]),
            cluster_scope: object["clusterScope"].as_bool().unwrap_or_default(),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let place = if info.namespace.is_empty() {
            self.cluster_scope
        } else {
            self.namespaces.iter().any(|namespace| namespace == ALL || *namespace == info.namespace)
        };
        place
            && has(&self.verbs, info.verb)
            && has(&self.groups, &info.group)
            && self.resources.iter().any(|resource| resource == ALL || names(resource, info))
    }
}

/// Whether this is the resource, or with a slash the subresource, that the request is about.
fn names(resource: &str, info: &RequestInfo) -> bool {
    match resource.split_once('/') {
        Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        None => resource == info.resource && info.subresource.is_empty(),
    }
}

impl PathRule {
    fn of(object: &Value) -> PathRule {
        PathRule { verbs: texts(&object["verbs"]), paths: texts(&object["nonResourceURLs"]) }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        has(&self.verbs, info.verb) && self.paths.iter().any(|path| leads_to(path, &info.path))
    }
}

/// A rule's path is for itself and what is below it.
fn leads_to(rule: &str, path: &str) -> bool {
    let below = rule.strip_suffix('*').unwrap_or(rule);
    let below = below.strip_suffix('/').unwrap_or(below);
    rule == ALL || rule == path || path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'))
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == ALL || item == text)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use apimachinery::json;
    use http::Method;

    use super::*;
    use crate::query::Query;

    fn schema(rule: Value, distinguisher: &str) -> FlowSchema {
        FlowSchema::of(&json!({"metadata": {"name": "s"}, "spec": {
            "matchingPrecedence": 10, "priorityLevelConfiguration": {"name": "l"},
            "distinguisherMethod": {"type": distinguisher}, "rules": [rule]}}))
    }

    fn request(method: Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, path, &Query::default())
    }

    fn check(rule: &Value, method: Method, path: &str, user: &UserInfo, expect: bool) {
        let found = schema(rule.clone(), "").matches(&request(method, path), user);
        assert_eq!(found, expect, "{path} by {}", user.name);
    }

    #[test]
    fn resources_match_by_verb_group_resource_and_place() {
        let rule = json!({
            "subjects": [{"kind": "Group", "group": {"name": "dev"}}],
            "resourceRules": [{"verbs": ["get", "list"], "apiGroups": ["apps"],
                "resources": ["deployments", "deployments/scale"], "namespaces": ["a"]}]});
        let ann = UserInfo::new("ann", ["dev"]);
        check(&rule, Method::GET, "/apis/apps/v1/namespaces/a/deployments", &ann, true);
        check(&rule, Method::GET, "/apis/apps/v1/namespaces/a/deployments/d/scale", &ann, true);
        check(&rule, Method::GET, "/apis/apps/v1/namespaces/a/deployments/d/status", &ann, false);
        check(&rule, Method::GET, "/apis/apps/v1/namespaces/b/deployments", &ann, false);
        check(&rule, Method::GET, "/apis/apps/v1/deployments", &ann, false);
        check(&rule, Method::POST, "/apis/apps/v1/namespaces/a/deployments", &ann, false);
        check(
            &rule,
            Method::GET,
            "/apis/apps/v1/namespaces/a/deployments",
            &UserInfo::new("bob", [""]),
            false,
        );
        check(&rule, Method::GET, "/apis", &ann, false);
    }

    #[test]
    fn cluster_scope_and_wildcards_are_for_everything() {
        let rule = json!({
            "subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz", "/openapi/*"]}]});
        let ann = UserInfo::new("ann", [""; 0]);
        check(&rule, Method::DELETE, "/api/v1/nodes/n", &ann, true);
        check(&rule, Method::GET, "/api/v1/namespaces/a/pods/p/log", &ann, true);
        for (path, expect) in [
            ("/healthz", true),
            ("/healthz/ping", true),
            ("/healthzz", false),
            ("/openapi/v2", true),
            ("/", false),
        ] {
            check(&rule, Method::GET, path, &ann, expect);
        }
    }

    #[test]
    fn service_accounts_match_alone_or_by_their_namespace() {
        let of = |name: &str| {
            json!({"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": name}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}]})
        };
        let account = |namespace, name| UserInfo::service_account(namespace, name, "");
        check(&of("x"), Method::GET, "/", &account("a", "x"), true);
        check(&of("x"), Method::GET, "/", &account("a", "xy"), false);
        check(&of("*"), Method::GET, "/", &account("a", "xy"), true);
        check(&of("*"), Method::GET, "/", &account("ab", "x"), false);
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let hasher = RandomState::new();
        let rule = json!({});
        let (ann, bob) = (UserInfo::new("ann", [""; 0]), UserInfo::new("bob", [""; 0]));
        let a = request(Method::GET, "/api/v1/namespaces/a/pods");
        let b = request(Method::GET, "/api/v1/namespaces/b/pods");
        let same = |distinguisher: &str, one: (&RequestInfo, &UserInfo), other: (&RequestInfo, &UserInfo)| {
            let schema = schema(rule.clone(), distinguisher);
            schema.flow(one.0, one.1, &hasher) == schema.flow(other.0, other.1, &hasher)
        };
        assert!(same("", (&a, &ann), (&b, &bob)));
        assert!(same("ByUser", (&a, &ann), (&b, &ann)) && !same("ByUser", (&a, &ann), (&a, &bob)));
        assert!(same("ByNamespace", (&a, &ann), (&a, &bob)) && !same("ByNamespace", (&a, &ann), (&b, &ann)));
    }
}
