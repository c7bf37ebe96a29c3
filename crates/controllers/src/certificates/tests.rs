//! Which requests are approved, how they are signed, and when they go.

use std::net::IpAddr;

use api::view::certificates::CertificateSigningRequest;
use api::view::core::Node;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::Authority;
use super::{approver, cleaner, request, signer};
use crate::plan::{Action, Plan};
use crate::testing::at;

/// A day in 2025, on which the tests' authority holds.
fn now() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().expect("a time")
}

fn authority() -> (Authority, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("signs itself").pem();
    let year = SignedDuration::from_hours(365 * 24);
    (Authority::new(&certificate, &key.serialize_pem(), year).expect("an authority"), certificate)
}

fn encoded(name: &str, organization: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("a name")),
        })
        .collect();
    let key = KeyPair::generate().expect("a key");
    STANDARD.encode(params.serialize_request(&key).expect("a request").pem().expect("PEM"))
}

fn csr(spec: Value, status: Value) -> CertificateSigningRequest {
    let object = json!({"metadata": {"name": "c", "uid": "u", "creationTimestamp": at(0).to_string()}, "spec": spec, "status": status});
    apimachinery::from_value(object).expect("a request")
}

fn approved() -> Value {
    json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": at(0).to_string()}]})
}

/// The status that the plan writes.
fn written(plan: &Plan) -> Option<Value> {
    match &plan.steps.first()?.action {
        Action::Update { object, .. } => Some(object["status"].clone()),
        _ => None,
    }
}

fn check_signed(signer: &str, name: &str, names: &[&str], usages: &[&str], expect: Result<(), &str>) {
    let spec =
        json!({"signerName": signer, "request": encoded(name, "system:nodes", names), "usages": usages});
    let status = written(&signer::reconcile(&csr(spec, approved()), &authority().0, now())).expect("a write");
    let failure = status["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == "Failed"));
    match expect {
        Ok(()) => assert!(failure.is_none() && status["certificate"].is_string(), "{status}"),
        Err(why) => assert_eq!(
            failure.map(|c| (&c["reason"], &c["message"])),
            Some((&json!("SignerValidationFailure"), &json!(why)))
        ),
    }
}

#[test]
fn each_signer_signs_what_it_is_for_and_says_why_not() {
    let (client, kubelet, serving) = (
        "kubernetes.io/kube-apiserver-client",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/kubelet-serving",
    );
    let client_usages = ["digital signature", "client auth"];
    let serving_usages = ["digital signature", "key encipherment", "server auth"];
    check_signed(client, "ann", &[], &client_usages, Ok(()));
    check_signed(
        client,
        "ann",
        &[],
        &["server auth"],
        Err("invalid usage for client certificate: server auth"),
    );
    check_signed(
        client,
        "ann",
        &[],
        &["digital signature"],
        Err("missing required usage for client certificate: client auth"),
    );
    check_signed(kubelet, "system:node:a", &[], &client_usages, Ok(()));
    check_signed(
        kubelet,
        "a",
        &[],
        &client_usages,
        Err("subject common name does not begin with system:node:"),
    );
    check_signed(
        kubelet,
        "system:node:a",
        &["a"],
        &client_usages,
        Err("DNS subjectAltNames are not allowed"),
    );
    check_signed(
        kubelet,
        "system:node:a",
        &[],
        &serving_usages,
        Err("usages did not match [client auth digital signature key encipherment]"),
    );
    check_signed(serving, "system:node:a", &["a", "10.0.0.1"], &serving_usages, Ok(()));
    check_signed(serving, "system:node:a", &[], &serving_usages, Err("DNS or IP subjectAltName is required"));
}

#[test]
fn only_approved_requests_of_known_signers_are_signed_once() {
    let spec = |signer: &str| json!({"signerName": signer, "request": encoded("x", "system:nodes", &[]), "usages": ["client auth"]});
    let plan = |signer: &str, status| signer::reconcile(&csr(spec(signer), status), &authority().0, now());
    let client = "kubernetes.io/kube-apiserver-client";
    assert!(!plan(client, approved()).is_empty());
    assert!(plan(client, json!({})).is_empty());
    assert!(plan("example.com/x", approved()).is_empty());
    let mut done = approved();
    done["certificate"] = "eA==".into();
    assert!(plan(client, done).is_empty());
    let both = ["Approved", "Denied"].map(|kind| json!({"type": kind, "status": "True"}));
    assert!(plan(client, json!({"conditions": both})).is_empty());
}

#[test]
fn a_certificate_holds_what_was_asked_for() {
    let (authority, ca) = authority();
    let request =
        request::parse(&encoded("ann", "dev", &["a.example", "10.0.0.1", "fd00::1"])).expect("parses");
    let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
    let hour = SignedDuration::from_hours(1);
    let pem = authority.sign(&request, &usages, Some(hour), now()).expect("signs");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&der).expect("X.509");
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM");
    let (_, ca) = X509Certificate::from_der(&ca).expect("X.509");
    certificate.verify_signature(Some(ca.public_key())).expect("is signed by the authority");
    assert_eq!(certificate.subject().to_string(), "CN=ann, O=dev");
    assert_eq!(certificate.issuer(), ca.subject());
    assert_eq!(certificate.validity().not_before.timestamp(), now().as_second() - 300);
    assert_eq!(certificate.validity().not_after.timestamp(), now().as_second() + 3600);
    let usage = certificate.key_usage().expect("reads").expect("is there").value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = certificate.extended_key_usage().expect("reads").expect("is there").value;
    assert!(extended.client_auth && !extended.server_auth);
    assert!(!certificate.is_ca());
    let names = certificate.subject_alternative_name().expect("reads").expect("is there").value;
    assert_eq!(names.general_names.len(), 3);
    let long = authority.sign(&request, &usages, None, now()).expect("signs");
    let der = CertificateDer::from_pem_slice(long.as_bytes()).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&der).expect("X.509");
    let year = 365 * 24 * 3600;
    assert_eq!(certificate.validity().not_after.timestamp(), now().as_second() + year - 300);
}

#[test]
fn a_kubelets_own_client_certificate_takes_one_of_two_rights() {
    let asked = |username: &str, name: &str| {
        let spec = json!({"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "username": username,
            "request": encoded(name, "system:nodes", &[]), "usages": ["client auth", "digital signature"]});
        let csr = csr(spec, json!({}));
        let request = request::parse(&csr.spec.request).expect("parses");
        approver::rights_to_ask(&csr, &request).into_iter().map(|(right, _)| right).collect::<Vec<_>>()
    };
    assert_eq!(asked("system:node:a", "system:node:a"), ["selfnodeclient", "nodeclient"]);
    assert_eq!(asked("system:bootstrap:x", "system:node:a"), ["nodeclient"]);
    assert_eq!(asked("ann", "ann"), [""; 0]);
}

#[test]
fn a_serving_certificate_is_for_the_addresses_of_its_own_node() {
    let node: Node = apimachinery::from_value(json!({"metadata": {"name": "a"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "a.example"}]}}))
    .expect("a node");
    let check = |username: &str, names: &[&str], expect: bool| {
        let spec = json!({"signerName": "kubernetes.io/kubelet-serving", "username": username,
            "request": encoded("system:node:a", "system:nodes", names), "usages": ["server auth", "digital signature"]});
        let csr = csr(spec, json!({}));
        let request = request::parse(&csr.spec.request).expect("parses");
        let found = approver::serving_node(&csr, &request) == Some("a") && approver::covers(&node, &request);
        assert_eq!(found, expect, "{username} {names:?}");
    };
    check("system:node:a", &["a", "a.example", "10.0.0.1"], true);
    check("system:node:a", &["kubernetes"], false);
    check("system:node:a", &["a", "10.0.0.2"], false);
    check("system:node:b", &["a"], false);
}

#[test]
fn requests_go_when_their_time_is_over() {
    let check = |status: Value, hours: i64, certificate: bool| {
        let mut status = status;
        if certificate {
            status["certificate"] = "eA==".into();
        }
        let csr = csr(json!({}), status);
        let plan = cleaner::reconcile(&csr, at(1));
        assert_eq!((plan.is_empty(), plan.requeue_at), (true, Some(at(hours * 3600))));
        assert!(!cleaner::reconcile(&csr, at(hours * 3600)).is_empty());
    };
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at(0).to_string()}]});
    check(json!({}), 24, false);
    check(condition("Approved"), 24, false);
    check(condition("Approved"), 1, true);
    check(condition("Denied"), 1, false);
    check(condition("Failed"), 1, false);
}
