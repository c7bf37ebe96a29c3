//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction and ClusterTrustBundleAttest: who may do what
//! in a signer's name. Follow `plugin/pkg/admission/certificates`.

use apimachinery::meta::str_at;
use apimachinery::{Status, Value};
use auth::Attributes;
use base64::Engine as _;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

pub struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        let Some(old) = updated(request, "approval") else { return Ok(()) };
        let signer = str_at(old, &["spec", "signerName"]);
        if may(request, world, "approve", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(request.forbidden(object, why))
    }
}

pub struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        let Some(old) = updated(request, "status") else { return Ok(()) };
        let same = |field: &str| old["status"][field] == object["status"][field];
        let signer = str_at(old, &["spec", "signerName"]);
        if (same("certificate") && same("conditions")) || may(request, world, "sign", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(request.forbidden(object, why))
    }
}

pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, _world: &dyn World) -> Result<(), Status> {
        if request.operation != Operation::Create
            || !request.is_for(GROUP, REQUESTS)
            || str_at(object, &["spec", "signerName"]) != CLIENT_SIGNER
        {
            return Ok(());
        }
        let subject = subject(str_at(object, &["spec", "request"]))
            .map_err(|why| request.forbidden(object, format!("failed to parse CSR: {why}")))?;
        if subject.organizations.iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(request.forbidden(object, why));
        }
        Ok(())
    }
}

pub struct ClusterTrustBundleAttest;

impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let signer = str_at(object, &["spec", "signerName"]);
        let unchanged = request.old.is_some_and(|old| old["spec"] == object["spec"]);
        if !writes
            || !request.is_for(GROUP, "clustertrustbundles")
            || signer.is_empty()
            || unchanged
            || may(request, world, "attest", signer)
        {
            return Ok(());
        }
        let why = format!("user not permitted to attest for signerName {signer:?}");
        Err(request.forbidden(object, why))
    }
}

/// The stored request for a certificate, when this updates that part of one.
fn updated<'a>(request: &Request<'a>, subresource: &str) -> Option<&'a Value> {
    let is_right = request.group == GROUP
        && request.resource == REQUESTS
        && request.subresource == subresource
        && request.operation == Operation::Update;
    request.old.filter(|_| is_right)
}

/// By the signer's whole name or by its domain (follows `IsAuthorizedForSignerName`).
fn may(request: &Request<'_>, world: &dyn World, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let asked =
            Attributes { verb, group: GROUP, resource: "signers", name, ..Attributes::of(request.user) };
        world.authorize(&asked).is_allowed()
    })
}

/// Whom a request wants a certificate for.
pub(crate) struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Reads a request, which is base64 of PEM.
pub(crate) fn subject(encoded: &str) -> Result<Subject, &'static str> {
    const BAD: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| BAD)?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|_| BAD)?;
    let (_, parsed) =
        X509CertificationRequest::from_der(&der).map_err(|_| "x509: malformed certificate request")?;
    let subject = &parsed.certification_request_info.subject;
    let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
    Ok(Subject {
        common_name: subject.iter_common_name().last().and_then(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, request, run};

    fn signing_request(signer: &str, organization: &str) -> Value {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "c"}, "spec": {"signerName": signer, "request": encoded}})
    }

    #[test]
    fn nobody_is_made_a_master_by_a_client_certificate() {
        let user = UserInfo::anonymous();
        let resource = format!("{REQUESTS}.{GROUP}");
        let create = request(&user, Operation::Create, &resource, "c");
        let check =
            |object| run(&CertificateSubjectRestriction, &create, object, &Objects::default()).map(|_| ());
        assert_eq!(check(signing_request(CLIENT_SIGNER, "dev")), Ok(()));
        assert_eq!(check(signing_request("example.com/x", MASTERS)), Ok(()));
        assert_eq!(
            check(signing_request(CLIENT_SIGNER, MASTERS)),
            Err("certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed".to_owned())
        );
        assert!(check(json!({"spec": {"signerName": CLIENT_SIGNER, "request": "eA=="}})).is_err());
    }

    #[test]
    fn approving_and_signing_takes_the_right_for_the_signer_or_its_domain() {
        let user = UserInfo::anonymous();
        let old = json!({"metadata": {"name": "c"}, "spec": {"signerName": "example.com/x"}});
        let mut new = old.clone();
        new["status"] = json!({"certificate": "x"});
        let check = |plugin: &dyn Plugin, part: &str, right: Option<(&'static str, &'static str)>| {
            let resource = format!("{REQUESTS}.{GROUP}/{part}");
            let update = Request { old: Some(&old), ..request(&user, Operation::Update, &resource, "c") };
            let world =
                right.into_iter().fold(Objects::default(), |world, (verb, name)| world.allowing(verb, name));
            run(plugin, &update, new.clone(), &world).is_ok()
        };
        assert!(!check(&CertificateApproval, "approval", None));
        assert!(check(&CertificateApproval, "status", None));
        assert!(check(&CertificateApproval, "approval", Some(("approve", "example.com/x"))));
        assert!(check(&CertificateApproval, "approval", Some(("approve", "example.com/*"))));
        assert!(!check(&CertificateSigning, "status", Some(("approve", "example.com/x"))));
        assert!(check(&CertificateSigning, "status", Some(("sign", "example.com/*"))));
    }
}
