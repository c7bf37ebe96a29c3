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

/// What a certificate says of its holder, read once for all requests of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    user: Result<UserInfo, Error>,
    not_after: Option<i64>,
}

impl Subject {
    /// From DER.
    pub fn of(der: &[u8]) -> Subject {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Subject { user: Err(Error::Malformed), not_after: None };
        };
        Subject {
            user: user(&certificate, der),
            not_after: Some(certificate.validity().not_after.timestamp()),
        }
    }

    /// The identity, if the certificate is that of a client.
    pub fn user(&self) -> Result<&UserInfo, Error> {
        self.user.as_ref().map_err(Clone::clone)
    }

    /// Until when it identifies its holder, in seconds since 1970; none if it is no certificate.
    pub fn not_after(&self) -> Option<i64> {
        self.not_after
    }
}

/// The identity in a verified client certificate (upstream: CommonNameUserConversion).
fn user(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<UserInfo, Error> {
    let subject = certificate.subject();
    let name = subject.iter_common_name().last().and_then(text).ok_or(Error::NoCommonName)?;
    let mut user = UserInfo::new(name, subject.iter_organization().filter_map(text));
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", fingerprint(der))]);
    Ok(user)
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
        let subject = Subject::of(&certificate("system:node:a", &["system:nodes"]));
        let user = subject.user().expect("an identity");
        assert_eq!(user.name, "system:node:a");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(user.node(), Some("a"));
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    }

    #[test]
    fn a_certificate_without_a_name_is_nobody() {
        assert_eq!(Subject::of(&certificate("", &["system:masters"])).user(), Err(Error::NoCommonName));
        assert_eq!(Subject::of(b"garbage").user(), Err(Error::Malformed));
    }
}
