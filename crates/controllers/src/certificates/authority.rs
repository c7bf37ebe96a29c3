//! Signs certificates with the cluster's authority (upstream: `authority.PermissiveSigningPolicy`). The subject and the
//! key are the request's, byte for byte; of its extensions only the alternative names are taken over.

use std::net::IpAddr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SignatureAlgorithm, SigningKey as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::key;
use super::request::{Names, Request};

/// Clocks may differ by this much.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates that hold shorter are not shortened by the backdate.
const SHORT: SignedDuration = SignedDuration::from_hours(8);
/// The least time that can be asked for.
const TTL_MIN: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the authority's certificate cannot be read")]
    Certificate,
    #[error("the authority's key is not PEM: {0}")]
    Pem(String),
    #[error("the authority's key cannot be read: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the authority's key is of a sort that signs no certificates")]
    Algorithm,
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
    #[error("unrecognized usage values: {0:?}")]
    Usages(Vec<String>),
    #[error("the kernel gives no random bytes")]
    Random,
}

/// A certificate and its key that sign others.
pub struct Authority {
    key: KeyPair,
    /// In DER: how its signatures are named, and its subject.
    algorithm: &'static [u8],
    subject: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    not_after: Timestamp,
    /// How long certificates hold unless less is asked for.
    ttl: SignedDuration,
}

/// DER of the AlgorithmIdentifiers of the keys that `rcgen` signs with by default.
const ALGORITHMS: [(&SignatureAlgorithm, &[u8]); 4] = [
    (&rcgen::PKCS_ECDSA_P256_SHA256, &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
    (&rcgen::PKCS_ECDSA_P384_SHA384, &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
    (&rcgen::PKCS_ED25519, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70]),
    (&rcgen::PKCS_RSA_SHA256, &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0]),
];

impl Authority {
    /// From PEM.
    pub fn new(certificate: &str, key: &str, ttl: SignedDuration) -> Result<Authority, Error> {
        let key = key::read(key)?;
        let algorithm = ALGORITHMS.iter().find(|(known, _)| *known == key.algorithm());
        let (_, algorithm) = algorithm.ok_or(Error::Algorithm)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| Error::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Error::Certificate)?;
        let key_identifier =
            parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|_| Error::Certificate)?;
        Ok(Authority {
            key,
            algorithm,
            subject: parsed.subject().as_raw().to_vec(),
            key_identifier,
            not_after,
            ttl,
        })
    }

    /// The certificate, PEM.
    pub fn sign(
        &self,
        request: &Request,
        usages: &[String],
        expiration: Option<SignedDuration>,
        now: Timestamp,
    ) -> Result<String, Error> {
        let (not_before, not_after) = self.validity(expiration, now)?;
        let mut serial = [0; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
        // Positive, and no leading zeros.
        serial[0] = serial[0] & 0x7f | 0x40;
        let body = [
            tlv(0xa0, &[2, 1, 2]),
            tlv(0x02, &serial),
            self.algorithm.to_vec(),
            self.subject.clone(),
            tlv(0x30, &[time(not_before), time(not_after)].concat()),
            request.subject.clone(),
            request.public_key.clone(),
            tlv(0xa3, &tlv(0x30, &self.extensions(request, usages)?)),
        ];
        let body = tlv(0x30, &body.concat());
        let mut signature = vec![0];
        signature.extend(self.key.sign(&body)?);
        let certificate = tlv(0x30, &[body, self.algorithm.to_vec(), tlv(0x03, &signature)].concat());
        Ok(pem(&certificate))
    }

    fn validity(
        &self,
        expiration: Option<SignedDuration>,
        now: Timestamp,
    ) -> Result<(Timestamp, Timestamp), Error> {
        let ttl = expiration.map_or(self.ttl, |asked| asked.max(TTL_MIN).min(self.ttl));
        let lasts = if ttl < SHORT { ttl } else { ttl - BACKDATE };
        if now >= self.not_after {
            return Err(Error::Expired(self.not_after));
        }
        Ok((now - BACKDATE, (now + lasts).min(self.not_after)))
    }

    fn extensions(&self, request: &Request, usages: &[String]) -> Result<Vec<u8>, Error> {
        let (key_usage, extended) = read_usages(usages)?;
        let mut all = Vec::new();
        if key_usage != 0 {
            all.extend(extension(15, true, &key_usage_bits(key_usage)));
        }
        if !extended.is_empty() {
            let identifiers: Vec<u8> = extended.iter().flat_map(|identifier| tlv(0x06, identifier)).collect();
            all.extend(extension(37, false, &tlv(0x30, &identifiers)));
        }
        all.extend(extension(19, true, &tlv(0x30, &[])));
        if let Some(identifier) = &self.key_identifier {
            all.extend(extension(35, false, &tlv(0x30, &tlv(0x80, identifier))));
        }
        if !request.names.is_empty() {
            // Critical when it is the only name there is.
            let nameless = request.subject == [0x30, 0];
            all.extend(extension(17, nameless, &tlv(0x30, &general_names(&request.names))));
        }
        Ok(all)
    }
}

/// The bits of `keyUsage`, the first being the lowest, and the identifiers of `extKeyUsage`.
fn read_usages(usages: &[String]) -> Result<(u16, Vec<&'static [u8]>), Error> {
    const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
    const CODE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
    const EMAIL: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 4];
    const IPSEC_END: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 5];
    const IPSEC_TUNNEL: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 6];
    const IPSEC_USER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 7];
    const TIME: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];
    const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
    const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0];
    const MICROSOFT: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3];
    const NETSCAPE: &[u8] = &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1];
    let (mut bits, mut extended, mut unknown) = (0_u16, Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => bits |= 1,
            "content commitment" => bits |= 1 << 1,
            "key encipherment" => bits |= 1 << 2,
            "data encipherment" => bits |= 1 << 3,
            "key agreement" => bits |= 1 << 4,
            "cert sign" => bits |= 1 << 5,
            "crl sign" => bits |= 1 << 6,
            "encipher only" => bits |= 1 << 7,
            "decipher only" => bits |= 1 << 8,
            "any" => extended.push(ANY),
            "server auth" => extended.push(SERVER),
            "client auth" => extended.push(CLIENT),
            "code signing" => extended.push(CODE),
            "email protection" | "s/mime" => extended.push(EMAIL),
            "ipsec end system" => extended.push(IPSEC_END),
            "ipsec tunnel" => extended.push(IPSEC_TUNNEL),
            "ipsec user" => extended.push(IPSEC_USER),
            "timestamping" => extended.push(TIME),
            "ocsp signing" => extended.push(OCSP),
            "microsoft sgc" => extended.push(MICROSOFT),
            "netscape sgc" => extended.push(NETSCAPE),
            other => unknown.push(other.to_owned()),
        }
    }
    extended.sort_unstable();
    extended.dedup();
    if unknown.is_empty() { Ok((bits, extended)) } else { Err(Error::Usages(unknown)) }
}

/// A BIT STRING without trailing zeros.
fn key_usage_bits(bits: u16) -> Vec<u8> {
    let [high, low] = bits.reverse_bits().to_be_bytes();
    let bytes = if low == 0 { vec![high] } else { vec![high, low] };
    let unused = bytes.last().map_or(0, |last| last.trailing_zeros());
    let mut content = vec![u8::try_from(unused).unwrap_or_default()];
    content.extend(bytes);
    tlv(0x03, &content)
}

/// One below `id-ce`.
fn extension(identifier: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut content = tlv(0x06, &[0x55, 0x1d, identifier]);
    if critical {
        content.extend([1, 1, 0xff]);
    }
    content.extend(tlv(0x04, value));
    tlv(0x30, &content)
}

fn general_names(names: &Names) -> Vec<u8> {
    let dns = names.dns.iter().map(|name| tlv(0x82, name.as_bytes()));
    let emails = names.emails.iter().map(|email| tlv(0x81, email.as_bytes()));
    let addresses = names.addresses.iter().map(|address| match address {
        IpAddr::V4(v4) => tlv(0x87, &v4.octets()),
        IpAddr::V6(v6) => tlv(0x87, &v6.octets()),
    });
    let uris = names.uris.iter().map(|uri| tlv(0x86, uri.as_bytes()));
    dns.chain(emails).chain(addresses).chain(uris).flatten().collect()
}

/// UTCTime to the end of 2049, GeneralizedTime from then on.
fn time(at: Timestamp) -> Vec<u8> {
    let civil = at.to_zoned(TimeZone::UTC);
    if civil.year() < 2050 {
        tlv(0x17, civil.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(0x18, civil.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

/// Tag, length and content in DER.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | u8::try_from(digits.len()).expect("at most eight"));
            bytes.extend(digits);
        }
    }
    bytes.extend(content);
    bytes
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    /// Of a line in a PEM block.
    const LINE: usize = 64;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(LINE).map(String::from_utf8_lossy);
    let lines: String = lines.flat_map(|line| [line.into_owned(), "\n".to_owned()]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}
