//! A client certificate as an identity: common name is the user, organizations are the groups. That the chain leads
//! to the cluster's authority has been checked by TLS before.

use ring::digest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use crate::user::{CREDENTIAL_ID, UserInfo};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the client certificate is not valid DER")]
    Malformed,
    #[error("the client certificate has no common name")]
    NoCommonName,
}

/// The identity in a verified client certificate (upstream: CommonNameUserConversion).
pub fn user(der: &[u8]) -> Result<UserInfo, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Malformed)?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().last().and_then(text).ok_or(Error::NoCommonName)?;
    let mut user = UserInfo::new(name, subject.iter_organization().filter_map(text));
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", fingerprint(der))]);
    Ok(user)
}

/// Whom a verified certificate names.
pub fn common_name(der: &[u8]) -> Result<String, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Malformed)?;
    certificate.subject().iter_common_name().last().and_then(text).ok_or(Error::NoCommonName)
}

/// Until when a certificate is good, in seconds since 1970; none if it is no certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().map(str::to_owned).ok().filter(|text| !text.is_empty())
}

fn fingerprint(der: &[u8]) -> String {
    digest::digest(&digest::SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, organizations: &[&str]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        for organization in organizations {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *organization);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn common_name_and_organization_become_user_and_group() {
        let user = user(&certificate("system:node:a", &["system:nodes"])).expect("an identity");
        assert_eq!(user.name, "system:node:a");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(user.node(), Some("a"));
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    }

    #[test]
    fn a_certificate_without_a_name_is_nobody() {
        assert_eq!(user(&certificate("", &["system:masters"])), Err(Error::NoCommonName));
        assert_eq!(user(b"garbage"), Err(Error::Malformed));
    }
}
