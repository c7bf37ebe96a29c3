//! What a CertificateSigningRequest may hold, and who may change what (follows `validateCertificateSigningRequest`,
//! `validateCertificateSigningRequestUpdate`). Signatures are for the signer to check.

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};
use base64::Engine;

use super::{APPROVED, DENIED, FAILED, conditions_of};
use crate::core::pod::validation::update::difference;
use crate::validation::{At, same};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// The longest part of a signer's name after the slash, and the longest name.
const SIGNER_PATH_MAX: usize = 253;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REQUEST_BLOCK: &str = "CERTIFICATE REQUEST";
const CERTIFICATE_BLOCK: &str = "CERTIFICATE";

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What an update may do, by the part of the object that it writes.
#[derive(Clone, Copy, Default)]
pub struct May {
    pub set_certificate: bool,
    pub decide: bool,
}

pub fn validate(obj: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = At::root(obj).get("spec");
    let request = spec.get("request");
    if !is_block(&decoded(request.text()), REQUEST_BLOCK) {
        errors.push(request.invalid("PEM block type must be CERTIFICATE REQUEST"));
    }
    usages(&spec.get("usages"), old, &mut errors);
    let signer = spec.get("signerName");
    let was_legacy = old.is_some_and(|old| str_at(old, &["spec", "signerName"]) == LEGACY_SIGNER);
    if signer.text() == LEGACY_SIGNER && !was_legacy {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(&signer, &mut errors);
    }
    let expiration = spec.get("expirationSeconds");
    if expiration.is_set() && expiration.int() < EXPIRATION_SECONDS_MIN {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(expiration.invalid(detail));
    }
    let status = At::root(obj).get("status");
    conditions(&status.get("conditions"), &mut errors);
    certificate(&status.get("certificate"), old, &mut errors);
    errors
}

fn decoded(base64: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the text begins with one PEM block of this type.
fn is_block(pem: &str, block: &str) -> bool {
    let (begin, end) = (format!("-----BEGIN {block}-----"), format!("-----END {block}-----"));
    pem.find(&begin).is_some_and(|at| pem[at..].contains(&end))
}

fn usages(list: &At, old: Option<&Value>, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    let before: Vec<&str> = old.map(|old| At::root(old).at(&["spec", "usages"]).texts()).unwrap_or_default();
    let had_unknown = before.iter().any(|usage| !USAGES.contains(usage));
    let had_twice = before.iter().collect::<BTreeSet<_>>().len() != before.len();
    for usage in list.items().filter(|usage| !had_unknown && !USAGES.contains(&usage.text())) {
        errors.push(usage.not_supported(&USAGES));
    }
    let mut seen = BTreeSet::new();
    for usage in list.items() {
        if !seen.insert(usage.text()) && !had_twice {
            errors.push(usage.duplicate());
        }
    }
}

/// A fully qualified domain, a slash and a name (follows `ValidateSignerName`).
fn signer_name(at: &At, errors: &mut ErrorList) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    let (domain, path) = match at.text().split('/').collect::<Vec<_>>()[..] {
        [domain, path] => (domain, path),
        _ => {
            errors.push(
                at.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"),
            );
            return;
        }
    };
    first_bad_label(domain, names::is_dns1123_label, at, errors);
    if domain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(&at.path, domain, detail));
    }
    first_bad_label(path, names::is_dns1123_subdomain, at, errors);
    let longest = SIGNER_PATH_MAX + 1 + SIGNER_PATH_MAX;
    if at.len() > longest {
        errors.push(Error::too_long(&at.path, longest));
    }
}

/// The complaints about the first part between dots that is not as it should be.
fn first_bad_label(name: &str, rule: fn(&str) -> Vec<String>, at: &At, errors: &mut ErrorList) {
    let Some(label) = name.split('.').find(|label| !rule(label).is_empty()) else { return };
    for complaint in rule(label) {
        let detail = format!("validating label {label:?}: {complaint}");
        errors.push(Error::invalid(&at.path, name, detail));
    }
}

fn conditions(list: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let (of_type, status) = (condition.get("type"), condition.get("status"));
        if of_type.is_empty() {
            errors.push(of_type.required(""));
        }
        let only_true = [APPROVED, DENIED, FAILED].contains(&of_type.text());
        status.check_enum(if only_true { &["True"] } else { &STATUSES }, errors);
        let opposite = match of_type.text() {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if seen.contains(opposite) && !opposite.is_empty() {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(Error::invalid(&list.path, of_type.text(), detail));
        }
        if !seen.insert(of_type.text()) {
            errors.push(of_type.duplicate());
        }
    }
}

fn certificate(at: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let unchanged = old.is_some_and(|old| str_at(old, &["status", "certificate"]) == at.text());
    if at.is_empty() || unchanged {
        return;
    }
    if !is_block(&decoded(at.text()), CERTIFICATE_BLOCK) {
        let detail = "must contain at least one CERTIFICATE PEM block";
        errors.push(Error::invalid(&at.path, "<certificate data>", detail));
    }
}

pub fn validate_update(obj: &Value, old: &Value, may: May) -> ErrorList {
    let mut errors = validate(obj, Some(old));
    let path = Path::new("status").child("conditions");
    let of = |obj: &Value, wanted: &str| -> Vec<Value> { conditions_of(obj, wanted).cloned().collect() };
    for wanted in [APPROVED, DENIED, FAILED] {
        if of(obj, wanted).len() < of(old, wanted).len() {
            let detail = format!("updates may not remove a condition of type {wanted:?}");
            errors.push(Error::forbidden(&path, detail));
        }
    }
    for wanted in [APPROVED, DENIED].into_iter().filter(|_| !may.decide) {
        let (new, before) = (Value::from(of(obj, wanted)), Value::from(of(old, wanted)));
        let (new_count, count) = (of(obj, wanted).len(), of(old, wanted).len());
        if new_count > count {
            let detail = format!("updates may not add a condition of type {wanted:?}");
            errors.push(Error::forbidden(&path, detail));
        } else if new_count == count && !same(&new, &before) {
            let changes = difference(&before, &new);
            let detail = format!("updates may not modify a condition of type {wanted:?}\n{changes}");
            errors.push(Error::forbidden(&path, detail));
        }
    }
    let content = |obj: &Value| str_at(obj, &["status", "certificate"]).to_owned();
    let path = Path::new("status").child("certificate");
    if content(obj) != content(old) {
        if !may.set_certificate {
            errors.push(Error::forbidden(&path, "updates may not set certificate content"));
        } else if !content(old).is_empty() {
            errors.push(Error::forbidden(&path, "updates may not modify existing certificate content"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn pem(block: &str) -> String {
        let text = format!("-----BEGIN {block}-----\nAAAA\n-----END {block}-----\n");
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn request(spec: Value, status: Value) -> Value {
        let mut obj = json!({"spec": {"request": pem(REQUEST_BLOCK), "usages": ["client auth"], "signerName": "e.com/s"},
            "status": status});
        for (key, value) in spec.as_object().into_iter().flatten() {
            obj["spec"][key] = value.clone();
        }
        obj
    }

    #[test]
    fn requests_are_checked_field_by_field() {
        let check =
            |spec: Value, expect: &[&str]| expect_errors(&validate(&request(spec, json!({})), None), expect);
        check(json!({}), &[]);
        check(
            json!({"request": "AAAA"}),
            &["spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE"],
        );
        check(json!({"usages": []}), &["spec.usages: Required value"]);
        check(
            json!({"usages": ["x", "any", "any"]}),
            &[
                "spec.usages[0]: Unsupported value: \"x\": supported values: \"any\"",
                "spec.usages[2]: Duplicate value: \"any\"",
            ],
        );
        check(
            json!({"signerName": "x"}),
            &["spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path"],
        );
        check(
            json!({"signerName": LEGACY_SIGNER}),
            &["spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the"],
        );
        check(
            json!({"expirationSeconds": 599}),
            &["spec.expirationSeconds: Invalid value: 599: may not specify"],
        );
    }

    #[test]
    fn each_part_changes_only_its_own() {
        let condition = |of_type: &str| json!({"type": of_type, "status": "True"});
        let old = request(json!({}), json!({"conditions": [condition("Approved")]}));
        let check = |status: Value, may: May, expect: &[&str]| {
            expect_errors(&validate_update(&request(json!({}), status), &old, may), expect);
        };
        let approved = json!([condition("Approved")]);
        let issued = json!({"conditions": approved, "certificate": pem(CERTIFICATE_BLOCK)});
        check(issued.clone(), May { set_certificate: true, decide: false }, &[]);
        check(
            issued,
            May { set_certificate: false, decide: true },
            &["status.certificate: Forbidden: updates may not set certificate content"],
        );
        check(
            json!({}),
            May { set_certificate: false, decide: true },
            &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        );
        check(
            json!({"conditions": [condition("Approved"), condition("Denied")]}),
            May::default(),
            &[
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
                "status.conditions: Forbidden: updates may not add a condition of type \"Denied\"",
            ],
        );
    }
}
