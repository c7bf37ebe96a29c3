//! What can be done at which path: the part of a document that follows from the served resources.

use super::{Resource, Subresource, path};
use crate::gvk::GroupVersionKind;
use crate::schema::{Schema, TypeId};

/// A query or path parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub ty: &'static str,
    pub description: &'static str,
    pub in_path: bool,
}

const fn query(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter { name, ty, description, in_path: false }
}

const fn in_path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, ty: "string", description, in_path: true }
}

pub const NAME: Parameter = in_path("name", "Name of the object.");
pub const NAMESPACE: Parameter = in_path("namespace", "Namespace of the object.");
const SUBPATH: Parameter = in_path("path", "The path to ask for.");
pub const PRETTY: Parameter = query("pretty", "string", "Whether to indent the answer.");

const DRY_RUN: Parameter = query("dryRun", "string", "With `All`, nothing is stored.");
const FIELD_MANAGER: Parameter =
    query("fieldManager", "string", "Who makes the change, in at most 128 printable characters.");
const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore drops them, Warn (the default) drops them and warns, \
     Strict refuses the request.",
);
const FORCE: Parameter =
    query("force", "boolean", "Take over fields others own; for server-side apply only.");
const GRACE_PERIOD: Parameter =
    query("gracePeriodSeconds", "integer", "Seconds before the object goes; zero means at once.");
const ORPHAN_DEPENDENTS: Parameter =
    query("orphanDependents", "boolean", "Deprecated in favour of propagationPolicy.");
const PROPAGATION_POLICY: Parameter =
    query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground.");
const CONTINUE: Parameter =
    query("continue", "string", "Where to go on, from the metadata of the previous page.");
const FIELD_SELECTOR: Parameter = query("fieldSelector", "string", "Restricts the list by fields.");
const LABEL_SELECTOR: Parameter = query("labelSelector", "string", "Restricts the list by labels.");
const LIMIT: Parameter = query("limit", "integer", "How many items a page may hold.");
const RESOURCE_VERSION: Parameter =
    query("resourceVersion", "string", "How fresh the answer must be, or where a watch starts.");
const RESOURCE_VERSION_MATCH: Parameter =
    query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan.");
const SEND_INITIAL_EVENTS: Parameter =
    query("sendInitialEvents", "boolean", "Start a watch with all that is there, then a bookmark.");
const TIMEOUT: Parameter = query("timeoutSeconds", "integer", "How long the call may take.");
const WATCH: Parameter = query("watch", "boolean", "Stream changes instead of answering a list.");
const BOOKMARKS: Parameter = query("allowWatchBookmarks", "boolean", "Send bookmark events in a watch.");

const LIST: &[Parameter] = &[
    BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: &[Parameter] = &[DRY_RUN, GRACE_PERIOD, ORPHAN_DEPENDENTS, PROPAGATION_POLICY];
const DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE_PERIOD,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    TIMEOUT,
];

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    None,
    Object(TypeId),
    Patch,
    DeleteOptions,
}

/// What an answer carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Object(TypeId),
    Status,
    /// Whatever the other end says: logs, proxied pages.
    Text,
}

#[derive(Debug)]
pub struct Operation<'a> {
    pub method: &'static str,
    /// `x-kubernetes-action`.
    pub action: &'static str,
    pub id: String,
    pub description: String,
    pub tag: String,
    pub gvk: GroupVersionKind,
    pub schema: &'a Schema,
    /// Whether patches can be strategic: custom kinds say nothing of how.
    pub strategic: bool,
    pub parameters: &'static [Parameter],
    pub body: Body,
    pub answer: Answer,
    /// HTTP statuses of success, other than 200.
    pub also: &'static [&'static str],
}

#[derive(Debug)]
pub struct PathItem<'a> {
    pub path: String,
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation<'a>>,
}

/// How each verb shows: HTTP method, action, beginning of the operation's id, description.
struct Verb {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    id: &'static str,
    description: &'static str,
    parameters: &'static [Parameter],
    also: &'static [&'static str],
}

const fn verb(
    verb: &'static str,
    (method, action, id): (&'static str, &'static str, &'static str),
    description: &'static str,
    parameters: &'static [Parameter],
    also: &'static [&'static str],
) -> Verb {
    Verb { verb, method, action, id, description, parameters, also }
}

const COLLECTION_VERBS: &[Verb] = &[
    verb("list", ("get", "list", "list"), "list or watch objects of kind", LIST, &[]),
    verb("create", ("post", "post", "create"), "create a", WRITE, &["201", "202"]),
    verb(
        "deletecollection",
        ("delete", "deletecollection", "delete"),
        "delete collection of",
        DELETE_COLLECTION,
        &[],
    ),
];
const OBJECT_VERBS: &[Verb] = &[
    verb("get", ("get", "get", "read"), "read the specified", &[], &[]),
    verb("update", ("put", "put", "replace"), "replace the specified", WRITE, &["201"]),
    verb("patch", ("patch", "patch", "patch"), "partially update the specified", PATCH, &["201"]),
    verb("delete", ("delete", "delete", "delete"), "delete a", DELETE, &["202"]),
];
const SUBRESOURCE_CREATE: &[Verb] =
    &[verb("create", ("post", "post", "create"), "create", WRITE, &["201", "202"])];
const CONNECT_VERBS: &[Verb] = &[
    verb("get", ("get", "connect", "connectGet"), "connect GET requests to", &[], &[]),
    verb("create", ("post", "connect", "connectPost"), "connect POST requests to", &[], &[]),
    verb("update", ("put", "connect", "connectPut"), "connect PUT requests to", &[], &[]),
    verb("patch", ("patch", "connect", "connectPatch"), "connect PATCH requests to", &[], &[]),
    verb("delete", ("delete", "connect", "connectDelete"), "connect DELETE requests to", &[], &[]),
];

/// Every path of a resource.
pub fn paths<'a>(resource: &Resource<'a>) -> Vec<PathItem<'a>> {
    let mut out = Vec::new();
    let root = format!("/{}", path(&resource.group_version()));
    let mut scope = vec![];
    let mut base = format!("{root}/{}", resource.plural);
    if resource.namespaced {
        if resource.verbs.contains(&"list") {
            let operations = vec![operation(resource, &COLLECTION_VERBS[0], "ForAllNamespaces", false)];
            out.push(PathItem { path: base, parameters: vec![PRETTY], operations });
        }
        base = format!("{root}/namespaces/{{namespace}}/{}", resource.plural);
        scope.push(NAMESPACE);
    }
    scope.push(PRETTY);
    let operations = |verbs: &'static [Verb]| -> Vec<Operation<'a>> {
        let served = verbs.iter().filter(|v| resource.verbs.contains(&v.verb));
        served.map(|v| operation(resource, v, "", resource.namespaced)).collect()
    };
    let collection = operations(COLLECTION_VERBS);
    out.push(PathItem { path: base.clone(), parameters: scope.clone(), operations: collection });
    scope.insert(0, NAME);
    let object = format!("{base}/{{name}}");
    out.push(PathItem {
        path: object.clone(),
        parameters: scope.clone(),
        operations: operations(OBJECT_VERBS),
    });
    for subresource in &resource.subresources {
        out.extend(subresource_paths(resource, subresource, &object, &scope));
    }
    out.retain(|item| !item.operations.is_empty());
    out
}

fn subresource_paths<'a>(
    resource: &Resource<'a>,
    subresource: &Subresource<'a>,
    object: &str,
    scope: &[Parameter],
) -> Vec<PathItem<'a>> {
    let path = format!("{object}/{}", subresource.name);
    let verbs: Vec<&'static Verb> = match subresource.ty {
        Some(_) => OBJECT_VERBS.iter().chain(SUBRESOURCE_CREATE).collect(),
        None => CONNECT_VERBS.iter().collect(),
    };
    let operations = || -> Vec<Operation<'a>> {
        let served = verbs.iter().filter(|v| subresource.verbs.contains(&v.verb));
        served.map(|v| subresource_operation(resource, subresource, v)).collect()
    };
    let mut out = vec![PathItem { path: path.clone(), parameters: scope.to_vec(), operations: operations() }];
    if subresource.name == "proxy" {
        let mut parameters = scope.to_vec();
        parameters.push(SUBPATH);
        let mut operations = operations();
        operations.iter_mut().for_each(|o| o.id.push_str("WithPath"));
        out.push(PathItem { path: format!("{path}/{{path}}"), parameters, operations });
    }
    out
}

fn operation<'a>(
    resource: &Resource<'a>,
    verb: &'static Verb,
    suffix: &str,
    namespaced: bool,
) -> Operation<'a> {
    let group_id = group_id(resource.group);
    let scope = if namespaced { "Namespaced" } else { "" };
    let collection = if verb.verb == "deletecollection" { "Collection" } else { "" };
    let version = capitalised(resource.version);
    let object = Answer::Object(resource.ty);
    let (body, answer) = match verb.verb {
        "list" => (Body::None, resource.list.map_or(object, Answer::Object)),
        "create" | "update" => (Body::Object(resource.ty), object),
        "patch" => (Body::Patch, object),
        "delete" | "deletecollection" => (Body::DeleteOptions, Answer::Status),
        _ => (Body::None, object),
    };
    Operation {
        method: verb.method,
        action: verb.action,
        id: format!("{}{group_id}{version}{collection}{scope}{}{suffix}", verb.id, resource.kind),
        description: format!("{} {}", verb.description, resource.kind),
        tag: format!("{}_{}", uncapitalised(&group_id), resource.version),
        gvk: GroupVersionKind::new(resource.group, resource.version, resource.kind),
        schema: resource.schema,
        strategic: resource.schema[resource.ty].published.is_none(),
        parameters: verb.parameters,
        body,
        answer,
        also: verb.also,
    }
}

fn subresource_operation<'a>(
    resource: &Resource<'a>,
    subresource: &Subresource<'a>,
    verb: &'static Verb,
) -> Operation<'a> {
    let suffix = capitalised(subresource.name);
    let mut out = operation(resource, verb, &suffix, resource.namespaced);
    out.description = format!("{} {} of the specified {}", verb.description, subresource.name, resource.kind);
    out.gvk = GroupVersionKind::new(subresource.group, subresource.version, subresource.kind);
    (out.body, out.answer) = match (subresource.ty, out.body) {
        (None, _) => (Body::None, Answer::Text),
        (Some(ty), Body::Object(_)) => (Body::Object(ty), Answer::Object(ty)),
        (Some(_), Body::DeleteOptions) => (Body::DeleteOptions, Answer::Status),
        (Some(ty), body) => (body, Answer::Object(ty)),
    };
    out
}

/// `rbac.authorization.k8s.io` is `RbacAuthorization`, the core group is `Core`.
fn group_id(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".to_owned(),
        group => group.split(['.', '-']).map(capitalised).collect(),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn uncapitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
