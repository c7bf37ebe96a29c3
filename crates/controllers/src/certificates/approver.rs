//! Approves kubelets' requests: for client certificates as upstream's `csrapproving`, after asking whether the author
//! may have one; for serving certificates of the author's own node when every name in it is an address of that Node.

use std::collections::BTreeSet;

use api::resource::{CERTIFICATE_SIGNING_REQUESTS, NODES, SUBJECT_ACCESS_REVIEWS};
use api::view::certificates::CertificateSigningRequest;
use api::view::core::Node;
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use super::request::{self, Request};
use super::{APPROVED, KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING, condition, is_decided};
use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

/// Rights that let their holder have a kubelet's client certificate, and what is said when they do.
const OWN_CLIENT: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const ANY_CLIENT: (&str, &str) =
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
const OWN_SERVING: &str = "Auto approving kubelet serving certificate for the addresses of its Node.";

struct Approver {
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Approver { requests: informers.get(), nodes: informers.get() })
}

#[async_trait]
impl Controller for Approver {
    fn watch(&self, watches: &mut Watches) {
        watches.on(CERTIFICATE_SIGNING_REQUESTS, &self.requests, itself);
        // A request may come before the addresses that it is for.
        let requests = self.requests.clone();
        watches.on(NODES, &self.nodes, move |delta| {
            if let Delta::Updated { old, new } = delta
                && old.status.addresses == new.status.addresses
            {
                return Vec::new();
            }
            let open = requests.list().into_iter().filter(|csr| csr.spec.signer_name == KUBELET_SERVING);
            open.filter(|csr| !is_decided(csr)).map(|csr| csr.metadata.namespaced_name()).collect()
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(csr) = self.requests.get("", &key.name) else { return Ok(Plan::default()) };
        if is_decided(&csr) || !csr.status.certificate.is_empty() {
            return Ok(Plan::default());
        }
        let Ok(request) = request::parse(&csr.spec.request) else { return Ok(Plan::default()) };
        if let Some(node) = serving_node(&csr, &request) {
            let node = self.nodes.get("", node);
            let approved = node.is_some_and(|node| covers(&node, &request));
            return Ok(if approved { approve(&csr, OWN_SERVING, now) } else { Plan::default() });
        }
        for (right, message) in rights_to_ask(&csr, &request) {
            if may(client, &csr, right).await? {
                return Ok(approve(&csr, message, now));
            }
        }
        Ok(Plan::default())
    }
}

/// The node whose kubelet asks for a serving certificate of its own.
pub fn serving_node<'a>(csr: &CertificateSigningRequest, request: &'a Request) -> Option<&'a str> {
    let is_serving = csr.spec.signer_name == KUBELET_SERVING
        && request::check_kubelet_serving(request, &csr.spec.usages).is_ok();
    request::own_node(request, &csr.spec.username).filter(|_| is_serving)
}

/// Whether all names asked for are the Node's.
pub fn covers(node: &Node, request: &Request) -> bool {
    let known: BTreeSet<&str> = node
        .status
        .addresses
        .iter()
        .map(|address| address.address.as_str())
        .chain([node.metadata.name.as_str()])
        .collect();
    let names = &request.names;
    names.dns.iter().all(|name| known.contains(name.as_str()))
        && names.addresses.iter().all(|address| known.contains(address.to_string().as_str()))
}

/// Any of these rights lets the author have this client certificate.
pub fn rights_to_ask(
    csr: &CertificateSigningRequest,
    request: &Request,
) -> Vec<(&'static str, &'static str)> {
    if csr.spec.signer_name != KUBE_APISERVER_CLIENT_KUBELET
        || request::check_kubelet_client(request, &csr.spec.usages).is_err()
    {
        return Vec::new();
    }
    let own = (csr.spec.username == request.common_name).then_some(OWN_CLIENT);
    own.into_iter().chain([ANY_CLIENT]).collect()
}

async fn may(client: &Client, csr: &CertificateSigningRequest, right: &str) -> client::error::Result<bool> {
    let spec = &csr.spec;
    let review = json!({
        "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version(), "kind": SUBJECT_ACCESS_REVIEWS.kind,
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {"group": CERTIFICATE_SIGNING_REQUESTS.group, "version": "*", "verb": "create",
                "resource": CERTIFICATE_SIGNING_REQUESTS.plural, "subresource": right},
        },
    });
    let answer = client.create(SUBJECT_ACCESS_REVIEWS, "", &review).await?;
    Ok(answer["status"]["allowed"] == true)
}

pub fn approve(csr: &CertificateSigningRequest, message: &str, now: Timestamp) -> Plan {
    let mut status = csr.status.clone();
    status.conditions.push(condition(APPROVED, "AutoApproved", message.to_owned(), now));
    let mut plan = Plan::default();
    plan.act(Action::Update {
        resource: CERTIFICATE_SIGNING_REQUESTS,
        namespace: String::new(),
        name: csr.metadata.name.clone(),
        subresource: Some("approval"),
        object: json!({
            "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version(), "kind": CERTIFICATE_SIGNING_REQUESTS.kind,
            "metadata": csr.metadata, "spec": csr.spec, "status": status,
        }),
    });
    plan
}
