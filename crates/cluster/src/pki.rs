//! The cluster's certificates: one authority, and a leaf for each who must prove who it is. Leaves are made anew when they
//! near their end or no longer cover what they must; the authority keeps its key, so that its leaves stay good.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const CA_LIFE_DAYS: i32 = 3650;
const LEAF_LIFE_DAYS: i32 = 365;
/// A leaf with less than this left is replaced.
const RENEW_BEFORE_DAYS: i32 = 120;
/// An authority with less than this left gets a new certificate: time for all who know the old one to learn the new one.
const CA_RENEW_BEFORE_DAYS: i32 = 2 * LEAF_LIFE_DAYS;
/// Clocks of a cluster's machines may differ by this much.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("certificate file {0}: {1}")]
    File(String, std::io::Error),
    #[error("certificate {0} cannot be made: {1}")]
    Make(String, rcgen::Error),
    #[error(
        "key file {0} is not a key; remove the pki folder only if the cluster may get a new identity: {1}"
    )]
    Key(String, rcgen::Error),
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// From when on it is replaced; none if it is no certificate.
    pub fn renew_at(&self) -> Option<Timestamp> {
        Some(not_after(&self.certificate)? - DAY * RENEW_BEFORE_DAYS)
    }
}

/// A leaf to be: where it is kept, whom it names and what for.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Without ending.
    pub file: String,
    pub common_name: String,
    pub usage: Usage,
}

impl Leaf {
    /// Of a user with groups.
    pub fn client(file: &str, common_name: &str, groups: &[&str]) -> Leaf {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Leaf { file: file.to_owned(), common_name: common_name.to_owned(), usage: Usage::Client { groups } }
    }

    /// Of a server reached by these names and addresses.
    pub fn server(file: &str, common_name: &str, names: Vec<String>, addresses: Vec<IpAddr>) -> Leaf {
        let usage = Usage::Server { names, addresses };
        Leaf { file: file.to_owned(), common_name: common_name.to_owned(), usage }
    }
}

/// What a leaf certifies.
#[derive(Clone, Debug)]
pub enum Usage {
    /// A server reached by these names and addresses.
    Server { names: Vec<String>, addresses: Vec<IpAddr> },
    /// A user with groups.
    Client { groups: Vec<String> },
}

/// The authority, kept in a folder together with every leaf it issued.
pub struct Pki {
    dir: PathBuf,
    ca_certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Reads the authority, or makes it. One that nears its end gets a new certificate for its key.
    pub fn open(dir: &Path, cluster: &str, now: Timestamp) -> Result<Pki, Error> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !certificate_path.exists() {
            make_authority(&certificate_path, &key_path, cluster, now)?;
        }
        let mut ca_certificate = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)
            .map_err(|e| Error::Key(key_path.display().to_string(), e))?;
        if not_after(&ca_certificate).is_some_and(|end| end.duration_since(now) < DAY * CA_RENEW_BEFORE_DAYS)
        {
            ca_certificate = certify_authority(&key, cluster, now)?;
            write(&certificate_path, &ca_certificate, 0o644)?;
        }
        let issuer = Issuer::from_ca_cert_pem(&ca_certificate, key)
            .map_err(|e| Error::Key(certificate_path.display().to_string(), e))?;
        Ok(Pki { dir: dir.to_owned(), ca_certificate, issuer })
    }

    /// PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.ca_certificate
    }

    /// PEM; whoever has it can make any identity.
    pub fn ca_key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A leaf, made or renewed as needed.
    pub fn identity(&self, leaf: &Leaf, now: Timestamp) -> Result<Identity, Error> {
        let Leaf { file, common_name, usage } = leaf;
        let (certificate_path, key_path) =
            (self.dir.join(format!("{file}.crt")), self.dir.join(format!("{file}.key")));
        if let (Ok(certificate), Ok(key)) =
            (std::fs::read_to_string(&certificate_path), std::fs::read_to_string(&key_path))
            && serves(&certificate, usage, now)
        {
            return Ok(Identity { certificate, key });
        }
        let identity = self.issue(common_name, usage, now).map_err(|e| Error::Make(file.to_owned(), e))?;
        write(&key_path, &identity.key, 0o600)?;
        write(&certificate_path, &identity.certificate, 0o644)?;
        Ok(identity)
    }

    fn issue(&self, common_name: &str, usage: &Usage, now: Timestamp) -> Result<Identity, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = params(common_name, usage, now)?.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The key that signs service account tokens, as `generate` makes one (PEM).
    pub fn service_account_key<E>(
        &self,
        generate: impl FnOnce() -> Result<String, E>,
    ) -> Result<Result<String, E>, Error> {
        let path = self.dir.join("sa.key");
        if path.exists() {
            return read(&path).map(Ok);
        }
        match generate() {
            Ok(key) => {
                write(&path, &key, 0o600)?;
                Ok(Ok(key))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

/// A server's certificate that nobody vouches for, and its key, kept nowhere: for who was given none.
pub fn self_signed(common_name: &str, usage: &Usage, now: Timestamp) -> Result<Identity, Error> {
    let made = KeyPair::generate().and_then(|key| {
        let certificate = params(common_name, usage, now)?.self_signed(&key)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    });
    made.map_err(|error| Error::Make(common_name.to_owned(), error))
}

fn params(common_name: &str, usage: &Usage, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    validity(&mut params, now, LEAF_LIFE_DAYS);
    match usage {
        Usage::Server { names, addresses } => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for name in names {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        }
        Usage::Client { groups } => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            for group in groups {
                params.distinguished_name.push(DnType::OrganizationName, group.as_str());
            }
        }
    }
    Ok(params)
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    subject
}

fn validity(params: &mut CertificateParams, now: Timestamp, days: i32) {
    let date = |at: Timestamp| {
        let civil = at.to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(civil.year().into(), civil.month().unsigned_abs(), civil.day().unsigned_abs())
            + std::time::Duration::from_secs(
                u64::try_from(at.as_second().rem_euclid(86_400)).expect("not negative"),
            )
    };
    params.not_before = date(now - BACKDATE);
    params.not_after = date(now + DAY * days);
}

fn make_authority(
    certificate_path: &Path,
    key_path: &Path,
    cluster: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let key = KeyPair::generate().map_err(|e| Error::Make("ca".to_owned(), e))?;
    // The key first: a certificate without its key would look like an authority.
    write(key_path, &key.serialize_pem(), 0o600)?;
    write(certificate_path, &certify_authority(&key, cluster, now)?, 0o644)
}

/// PEM.
fn certify_authority(key: &KeyPair, cluster: &str, now: Timestamp) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("{cluster}-ca"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, now, CA_LIFE_DAYS);
    let certificate = params.self_signed(key).map_err(|e| Error::Make("ca".to_owned(), e))?;
    Ok(certificate.pem())
}

/// The hash by which others pin an authority: of its public key, so that it outlives the certificate (kubeadm's
/// `pubkeypin`). None of what is no certificate, PEM.
pub fn public_key_hash(pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let hash = digest(&SHA256, certificate.public_key().raw);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{hex}"))
}

/// When a certificate ends, PEM.
pub fn not_after(pem: &str) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whether a certificate on disk is still good for its use.
fn serves(pem: &str, usage: &Usage, now: Timestamp) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
    let left = certificate.validity().not_after.timestamp() - now.as_second();
    if left < (DAY * RENEW_BEFORE_DAYS).as_secs() {
        return false;
    }
    match usage {
        Usage::Client { .. } => true,
        Usage::Server { names, addresses } => {
            let wanted: std::collections::BTreeSet<Vec<u8>> =
                names.iter().map(|n| n.as_bytes().to_vec()).chain(addresses.iter().map(octets)).collect();
            wanted.is_subset(&alternative_names(&certificate))
        }
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> std::collections::BTreeSet<Vec<u8>> {
    use x509_parser::extensions::GeneralName;
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.as_bytes().to_vec()),
            GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
        .collect()
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::File(path.display().to_string(), e))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    files::write(path, text.as_bytes(), mode).map_err(|e| Error::File(path.display().to_string(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            files::remove(&self.0).expect("removes");
        }
    }

    fn scratch(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("pki-{}-{name}", std::process::id())))
    }

    #[test]
    fn a_leaf_is_kept_until_it_nears_its_end_or_lacks_a_name() {
        let dir = scratch("renew");
        let now = Timestamp::now();
        let pki = Pki::open(&dir.0, "c", now).expect("makes an authority");
        let leaf = |addresses: Vec<IpAddr>| Leaf::server("server", "s", vec!["a".to_owned()], addresses);
        let one = leaf(Vec::new());
        let first = pki.identity(&one, now).expect("issues");
        assert_eq!(pki.identity(&one, now).expect("keeps"), first);
        let due = first.renew_at().expect("is a certificate");
        assert_eq!(pki.identity(&one, due).expect("keeps"), first, "it is good to the last");
        let later = due + SignedDuration::from_secs(1);
        assert_ne!(pki.identity(&one, later).expect("renews").certificate, first.certificate);
        let more = leaf(vec![IpAddr::from([192, 0, 2, 1])]);
        assert_ne!(pki.identity(&more, now).expect("covers more"), first);
        assert_eq!(Pki::open(&dir.0, "c", now).expect("reads").ca_certificate(), pki.ca_certificate());
    }

    #[test]
    fn an_authority_that_nears_its_end_goes_on_with_its_key() {
        let dir = scratch("authority");
        let now = Timestamp::now();
        let old = Pki::open(&dir.0, "c", now).expect("makes an authority");
        let years = |years: i32| now + DAY * 365 * years;
        assert_eq!(Pki::open(&dir.0, "c", years(7)).expect("reads").ca_certificate(), old.ca_certificate());
        for slept in [9, 25] {
            let new = Pki::open(&dir.0, "c", years(slept)).expect("renews");
            assert_ne!(new.ca_certificate(), old.ca_certificate());
            assert_eq!(new.ca_key(), old.ca_key());
            let leaf = new.identity(&Leaf::client("admin", "a", &[]), years(slept)).expect("issues");
            assert!(leaf.renew_at() > Some(years(slept)));
        }
    }

    #[test]
    fn a_client_is_named_with_its_groups() {
        let dir = scratch("client");
        let pki = Pki::open(&dir.0, "c", Timestamp::now()).expect("makes an authority");
        let leaf = Leaf::client("admin", "kubernetes-admin", &["system:masters"]);
        let admin = pki.identity(&leaf, Timestamp::now()).expect("issues");
        let der = CertificateDer::from_pem_slice(admin.certificate.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&der).expect("X.509");
        assert_eq!(certificate.subject().to_string(), "CN=kubernetes-admin, O=system:masters");
    }
    /// The hash is what `openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256` says.
    #[test]
    fn the_public_key_of_an_authority_is_pinned_by_its_hash() {
        const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
            MIIBcDCCARWgAwIBAgIUJLpWzMirGEpM71yuB4RaTD7QP0owCgYIKoZIzj0EAwIw\n\
            DDEKMAgGA1UEAwwBYTAgFw0yNjExMjExODAwMjZaGA8yMTI2MTAyODE4MDAyNlow\n\
            DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEpCMDxoyoiO\n\
            F9Jtc7gyUC+/0csTTOCAKjSwi13CnF2gcIcbqNhsgSc9t7WJbYq2hnhPTOFvFn32\n\
            L37Rlxhx9t2jUzBRMB0GA1UdDgQWBBSMjr9uJPyoYVhO6oxDMUNU43RflzAfBgNV\n\
            HSMEGDAWgBSMjr9uJPyoYVhO6oxDMUNU43RflzAPBgNVHRMBAf8EBTADAQH/MAoG\n\
            CCqGSM49BAMCA0kAMEYCIQCVTiskn/fV5JsB3gkNHVU6yFRWIJ4+pABo7Fm0L2DP\n\
            ZAIhAJ7Nj8AfIZH9pvIzjEtUP4PCFm5ekeFVOMnlrRKa+PUw\n\
            -----END CERTIFICATE-----\n";
        assert_eq!(
            public_key_hash(CERTIFICATE).as_deref(),
            Some("sha256:4179f42562c687cebf637826349301dbd49f9ceccd20d6b059f9ba17a05af22d")
        );
        assert_eq!(public_key_hash("no certificate"), None);
        let dir = scratch("pin");
        let now = Timestamp::now();
        let pin = |now| public_key_hash(Pki::open(&dir.0, "c", now).expect("opens").ca_certificate());
        assert_eq!(pin(now), pin(now + DAY * 365 * 9), "a new certificate for the key has the same");
    }
}
