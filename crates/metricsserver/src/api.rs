//! The API group: NodeMetrics and PodMetrics of `v1beta1`, single or as lists, as objects or as tables.

mod object;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::api::view::core::{Node, Pod};
use apimachinery::labels::{self, Selector};
use apimachinery::meta::ObjectMeta;
use apimachinery::{GroupResource, Status, Value, json};
use bytes::Bytes;
use client::Body;
use client::query::query_value;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use crate::server::MetricsServer;

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";

/// What a path below the group version names; empty where it names none.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Resources,
    Nodes { name: &'a str },
    Pods { namespace: &'a str, name: &'a str },
}

impl<'a> Wanted<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts.as_slice() {
            ["apis", GROUP, VERSION] => Wanted::Resources,
            ["apis", GROUP, VERSION, "nodes"] => Wanted::Nodes { name: "" },
            ["apis", GROUP, VERSION, "nodes", name] => Wanted::Nodes { name },
            ["apis", GROUP, VERSION, "pods"] => Wanted::Pods { namespace: "", name: "" },
            ["apis", GROUP, VERSION, "namespaces", namespace, "pods"] => Wanted::Pods { namespace, name: "" },
            ["apis", GROUP, VERSION, "namespaces", namespace, "pods", name] => {
                Wanted::Pods { namespace, name }
            }
            _ => return None,
        })
    }
}

/// Which objects of a list are wanted.
struct Filter {
    labels: Option<Selector>,
    /// Names and values that `metadata.name` and `metadata.namespace` must have, or must not have.
    fields: Vec<(String, bool, String)>,
}

impl Filter {
    fn parse(query: &str) -> Result<Self, Status> {
        let labels = query_value(query, "labelSelector").filter(|text| !text.is_empty());
        let labels = labels.map(|text| labels::parse(&text)).transpose();
        let labels = labels.map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = query_value(query, "fieldSelector").unwrap_or_default();
        let fields =
            fields.split(',').filter(|text| !text.is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Filter { labels, fields })
    }

    fn matches(&self, metadata: &ObjectMeta) -> bool {
        let field = |name: &str| if name == "metadata.name" { &metadata.name } else { &metadata.namespace };
        self.labels.as_ref().is_none_or(|selector| selector.matches(&metadata.labels))
            && self.fields.iter().all(|(name, equal, value)| (field(name) == value) == *equal)
    }
}

fn field(text: &str) -> Result<(String, bool, String), Status> {
    let split = |separator, equal| text.split_once(separator).map(|(name, value)| (name, equal, value));
    let parsed = split("!=", false).or(split("==", true)).or(split("=", true));
    let (name, equal, value) = parsed
        .ok_or_else(|| Status::bad_request(format!("invalid selector: '{text}'; can't understand it")))?;
    if !["metadata.name", "metadata.namespace"].contains(&name) {
        return Err(Status::bad_request(format!("{name:?} is not a known field selector")));
    }
    Ok((name.to_owned(), equal, value.to_owned()))
}

impl MetricsServer {
    /// Answers a request for the group version, whose sender may do what it asks for.
    pub async fn answer(self: &Arc<Self>, request: &Request<Bytes>) -> Response<Body> {
        match self.value(request).await {
            Ok(value) => response(StatusCode::OK, &value),
            Err(status) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                response(code, &apimachinery::to_value(&status).unwrap_or_default())
            }
        }
    }

    async fn value(self: &Arc<Self>, request: &Request<Bytes>) -> Result<Value, Status> {
        let wanted = Wanted::parse(request.uri().path()).ok_or_else(Status::path_not_found)?;
        if request.method() != Method::GET {
            let why = "the server does not allow this method on the requested resource";
            return Err(Status::failure(405, "MethodNotAllowed", why));
        }
        let query = request.uri().query().unwrap_or_default();
        if ["true", "1"].contains(&query_value(query, "watch").unwrap_or_default().as_str()) {
            let why = "the server does not allow this method on the requested resource";
            return Err(Status::failure(405, "MethodNotAllowed", why));
        }
        let filter = Filter::parse(query)?;
        let (kind, items, is_list) = match wanted {
            Wanted::Resources => return Ok(resources()),
            Wanted::Nodes { name: "" } => ("NodeMetrics", self.nodes(&filter).await, true),
            Wanted::Nodes { name } => ("NodeMetrics", vec![self.node(name).await?], false),
            Wanted::Pods { namespace, name: "" } => ("PodMetrics", self.pods(namespace, &filter).await, true),
            Wanted::Pods { namespace, name } => ("PodMetrics", vec![self.pod(namespace, name).await?], false),
        };
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        if accept.is_some_and(table::is_wanted) {
            return Ok(table::table(&items));
        }
        Ok(match (is_list, items) {
            (false, items) => items.into_iter().next().unwrap_or_default(),
            (true, items) => object::list(kind, items),
        })
    }

    async fn nodes(self: &Arc<Self>, filter: &Filter) -> Vec<Value> {
        let storage = self.storage().await;
        let mut nodes: Vec<Arc<Node>> = self.nodes.list();
        nodes.retain(|node| filter.matches(&node.metadata));
        nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        nodes.iter().filter_map(|node| object::node(&node.metadata, &storage)).collect()
    }

    async fn node(self: &Arc<Self>, name: &str) -> Result<Value, Status> {
        let storage = self.storage().await;
        let node = self.nodes.get("", name);
        let found = node.and_then(|node| object::node(&node.metadata, &storage));
        found.ok_or_else(|| Status::not_found(&GroupResource::new(GROUP, "nodes"), name))
    }

    async fn pods(self: &Arc<Self>, namespace: &str, filter: &Filter) -> Vec<Value> {
        let storage = self.storage().await;
        let mut pods: Vec<Arc<Pod>> =
            if namespace.is_empty() { self.pods.list() } else { self.pods.list_namespace(namespace) };
        pods.retain(|pod| filter.matches(&pod.metadata));
        pods.sort_by(|a, b| {
            (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
        });
        pods.iter().filter_map(|pod| object::pod(pod, &storage)).collect()
    }

    async fn pod(self: &Arc<Self>, namespace: &str, name: &str) -> Result<Value, Status> {
        let storage = self.storage().await;
        let found = self.pods.get(namespace, name).and_then(|pod| object::pod(&pod, &storage));
        let missing =
            || Status::not_found(&GroupResource::new(GROUP, "pods"), &format!("{namespace}/{name}"));
        found.ok_or_else(missing)
    }
}

fn response(code: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn resources() -> Value {
    let row = |name: &str, namespaced: bool, kind: &str| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [row("nodes", false, "NodeMetrics"), row("pods", true, "PodMetrics")],
    })
}
