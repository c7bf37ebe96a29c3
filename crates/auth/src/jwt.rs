//! Signed JSON web tokens in compact form, with the two algorithms service accounts use: RS256 and ES256.

use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use ring::{digest, rand};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of each coordinate of a point on P-256.
const P256_COORDINATE_BYTES: usize = 32;
/// The longest token looked at; ours are below 2 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the signing key is not a PEM private key")]
    KeyFormat,
    #[error("the signing key is neither RSA of 2048 to 8192 bits nor ECDSA P-256: {0}")]
    KeyRejected(String),
    #[error("signing the token failed")]
    Signing,
    #[error("the token is not a compact JSON web token")]
    Malformed,
    #[error("the token's signature is by no known key")]
    Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default)]
    kid: &'a str,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
}

/// A private key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

/// A public key that tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// An uncompressed point, or an `RSAPublicKey`.
    bytes: Vec<u8>,
    /// Names the key in a token's header: the hash of its SubjectPublicKeyInfo, as upstream derives it.
    id: String,
}

impl SigningKey {
    /// A new ECDSA P-256 key, as PKCS#8 PEM.
    pub fn generate_pem() -> Result<String, Error> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Signing)?;
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// Reads a PKCS#8 key of either algorithm, or a PKCS#1 RSA key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let rejected = |e: ring::error::KeyRejected| Error::KeyRejected(e.to_string());
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::KeyFormat)? {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()) {
                    Ok(pair) => Ok(Self::ecdsa(pair)),
                    Err(_) => RsaKeyPair::from_pkcs8(der).map(Self::rsa).map_err(rejected),
                }
            }
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Self::rsa).map_err(rejected)
            }
            _ => Err(Error::KeyFormat),
        }
    }

    fn ecdsa(pair: EcdsaKeyPair) -> Self {
        let public = VerifyingKey::new(Algorithm::Es256, pair.public_key().as_ref());
        SigningKey { pair: Pair::Ecdsa(Box::new(pair)), public }
    }

    fn rsa(pair: RsaKeyPair) -> Self {
        let public = VerifyingKey::new(Algorithm::Rs256, pair.public_key().as_ref());
        SigningKey { pair: Pair::Rsa(Box::new(pair)), public }
    }

    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// The compact token that carries these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = Header { alg: self.public.algorithm.name(), kid: &self.public.id };
        let encode = |json: Result<Vec<u8>, serde_json::Error>| {
            json.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| Error::Malformed)
        };
        let header = encode(serde_json::to_vec(&header))?;
        let mut token = format!("{header}.{}", encode(serde_json::to_vec(claims))?);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random: &dyn rand::SecureRandom = &SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(random, message).map(|s| s.as_ref().to_vec()).map_err(|_| Error::Signing)
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).map_err(|_| Error::Signing)?;
                Ok(signature)
            }
        }
    }
}

impl VerifyingKey {
    fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, &subject_public_key_info(algorithm, bytes));
        VerifyingKey { algorithm, bytes: bytes.to_vec(), id: URL_SAFE_NO_PAD.encode(hash) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key as issuer discovery publishes it (RFC 7517).
    pub fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        match self.algorithm {
            Algorithm::Es256 => {
                // An uncompressed point is one byte of form, then both coordinates.
                let (x, y) = self.bytes[1..].split_at(P256_COORDINATE_BYTES);
                jwk["kty"] = "EC".into();
                jwk["crv"] = "P-256".into();
                jwk["x"] = encode(x).into();
                jwk["y"] = encode(y).into();
            }
            Algorithm::Rs256 => {
                let key: ring::rsa::PublicKeyComponents<Vec<u8>> = self.rsa_components();
                jwk["kty"] = "RSA".into();
                jwk["n"] = encode(&key.n).into();
                jwk["e"] = encode(&key.e).into();
            }
        }
        jwk
    }

    /// Modulus and exponent out of the `RSAPublicKey`: a sequence of two integers.
    fn rsa_components(&self) -> ring::rsa::PublicKeyComponents<Vec<u8>> {
        let (content, _) = der_content(&self.bytes);
        let (n, rest) = der_content(content);
        let (e, _) = der_content(rest);
        // A leading zero only keeps the integer positive.
        let unsigned = |bytes: &[u8]| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec();
        ring::rsa::PublicKeyComponents { n: unsigned(n), e: unsigned(e) }
    }

    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.bytes)
                .verify(message, signature)
                .is_ok(),
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.bytes)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// The DER SubjectPublicKeyInfo of a key: algorithm identifier and bit string.
fn subject_public_key_info(algorithm: Algorithm, key: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const EC_P256: &[u8] =
        b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let identifier = match algorithm {
        Algorithm::Rs256 => RSA_ENCRYPTION,
        Algorithm::Es256 => EC_P256,
    };
    let bits = der(0x03, &[&[0], key].concat());
    der(0x30, &[identifier, &bits].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count()..];
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

/// The content of the DER element in front, and what follows it. The bytes are ring's own encoding.
fn der_content(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match bytes[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (bytes[2..2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
        }
    };
    bytes[header..].split_at(length)
}

/// Checks the signature against the keys and reads the claims, which the caller has yet to judge. The header's
/// algorithm must be the one of the key that accepts: a token cannot choose how it is checked.
pub fn verify<C: DeserializeOwned>(token: &str, keys: &[VerifyingKey]) -> Result<C, Error> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Error::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed);
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| Error::Malformed)?;
    let named = |key: &&VerifyingKey| {
        key.algorithm.name() == header.alg && (header.kid.is_empty() || key.id == header.kid)
    };
    if !keys.iter().filter(named).any(|key| key.accepts(message.as_bytes(), &signature)) {
        return Err(Error::Signature);
    }
    serde_json::from_slice(&claims).map_err(|_| Error::Malformed)
}

/// The claims of a token whose signature nobody has checked; good only to choose who should.
pub fn unverified<C: DeserializeOwned>(token: &str) -> Option<C> {
    let claims = token.split('.').nth(1).filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For tests only; guards nothing.
    const RSA: &[u8] = include_bytes!("jwt/rsa-for-tests.pem");
    const EC: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQoHM1+1YJMmXt1NW
2pfY7WvImDs4XPMP7SkSguZZOoChRANCAASxsYAaYGbLasRxpQHOAQjbJ1/cABmm
y0rSiGCsStZiWMmHnMpiTbTFFNZgohE0ExWJWGTzehNbTXHmhJottkL3
-----END PRIVATE KEY-----";

    fn key() -> SigningKey {
        SigningKey::from_pem(SigningKey::generate_pem().expect("a key").as_bytes()).expect("reads back")
    }

    #[test]
    fn a_signed_token_is_read_by_its_key_only() {
        let (ours, other) = (key(), key());
        let token = ours.sign(&json!({"sub": "x"})).expect("signs");
        let keys = [other.verifying_key().clone(), ours.verifying_key().clone()];
        assert_eq!(verify::<Value>(&token, &keys), Ok(json!({"sub": "x"})));
        assert_eq!(verify::<Value>(&token, &keys[..1]), Err(Error::Signature));
    }

    #[test]
    fn both_algorithms_sign_and_name_their_keys_as_upstream_does() {
        for (pem, algorithm, id) in [
            (RSA, "RS256", "diuyk1WhuxiK1bO7hOVt5ar4mK4vsFrvfWfO8puACLA"),
            (EC.as_bytes(), "ES256", "Wr20xk35yam1Mh8Iz7QkbRZGY38HK1F75Qr3TNcQT50"),
        ] {
            let key = SigningKey::from_pem(pem).expect("reads");
            let public = key.verifying_key();
            assert_eq!(public.id(), id);
            let token = key.sign(&json!({"sub": "x"})).expect("signs");
            assert_eq!(verify::<Value>(&token, std::slice::from_ref(public)), Ok(json!({"sub": "x"})));
            let jwk = public.to_jwk();
            assert_eq!((&jwk["alg"], &jwk["kid"]), (&json!(algorithm), &json!(id)));
        }
        let rsa = SigningKey::from_pem(RSA).expect("reads").verifying_key().to_jwk();
        assert_eq!(rsa["e"], "AQAB");
        assert_eq!(URL_SAFE_NO_PAD.decode(rsa["n"].as_str().expect("text")).expect("base64").len(), 256);
    }

    #[test]
    fn a_changed_or_unsigned_token_is_refused() {
        let key = key();
        let keys = [key.verifying_key().clone()];
        let token = key.sign(&json!({"sub": "x"})).expect("signs");
        let forged = token.replacen('.', ".e", 1);
        assert!(verify::<Value>(&forged, &keys).is_err());
        let none =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        assert_eq!(verify::<Value>(&none, &keys), Err(Error::Signature));
        for garbage in ["", ".", "a.b.c", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(verify::<Value>(garbage, &keys), Err(Error::Malformed), "{garbage}");
        }
    }

    #[test]
    fn long_der_lengths_are_written_in_long_form() {
        assert_eq!(der(4, &[0; 3])[..2], [4, 3]);
        assert_eq!(der(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(der(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }
}
