//! Public keys: which algorithms they go with, and their forms as JSON web keys (RFC 7517) and as DER.

use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// How a token is signed (RFC 7518), of the algorithms that upstream takes all but ES512, whose curve ring lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
}

impl Algorithm {
    pub const ALL: [Algorithm; 8] = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
        }
    }

    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn key_type(self) -> KeyType {
        match self {
            Algorithm::ES256 => KeyType::P256,
            Algorithm::ES384 => KeyType::P384,
            _ => KeyType::Rsa,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    P256,
    P384,
}

impl KeyType {
    /// The curve's name, and the bytes of each coordinate of a point on it.
    fn curve(self) -> Option<(&'static str, usize)> {
        match self {
            KeyType::Rsa => None,
            KeyType::P256 => Some(("P-256", 32)),
            KeyType::P384 => Some(("P-384", 48)),
        }
    }
}

/// A public key that tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    key_type: KeyType,
    /// An uncompressed point, or an `RSAPublicKey`.
    bytes: Vec<u8>,
    /// Names the key in a token's header.
    id: String,
}

/// Before the coordinates of a point that is not compressed (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

impl VerifyingKey {
    /// A key of the cluster's own: its id is the hash of its SubjectPublicKeyInfo, as upstream derives it.
    pub(super) fn new(key_type: KeyType, bytes: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, &subject_public_key_info(key_type, bytes));
        VerifyingKey { key_type, bytes: bytes.to_vec(), id: URL_SAFE_NO_PAD.encode(hash) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm that the cluster signs with when it has such a key.
    pub(super) fn usual(&self) -> Algorithm {
        match self.key_type {
            KeyType::Rsa => Algorithm::RS256,
            KeyType::P256 => Algorithm::ES256,
            KeyType::P384 => Algorithm::ES384,
        }
    }

    /// The key as issuer discovery publishes it.
    pub fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({"use": "sig", "kid": self.id, "alg": self.usual().name()});
        match self.key_type.curve() {
            Some((curve, coordinate)) => {
                let (x, y) = self.bytes[1..].split_at(coordinate);
                jwk["kty"] = "EC".into();
                jwk["crv"] = curve.into();
                jwk["x"] = encode(x).into();
                jwk["y"] = encode(y).into();
            }
            None => {
                let (n, e) = self.rsa_components();
                jwk["kty"] = "RSA".into();
                jwk["n"] = encode(n).into();
                jwk["e"] = encode(e).into();
            }
        }
        jwk
    }

    /// A key that an issuer publishes; none when it is of a kind not known here or not for signatures.
    pub fn from_jwk(jwk: &Value) -> Option<VerifyingKey> {
        if !matches!(str_at(jwk, &["use"]), "" | "sig") {
            return None;
        }
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?.trim_end_matches('=')).ok();
        let (key_type, bytes) = match (str_at(jwk, &["kty"]), str_at(jwk, &["crv"])) {
            ("RSA", _) => (KeyType::Rsa, der(0x30, &[integer(&part("n")?), integer(&part("e")?)].concat())),
            ("EC", curve) => {
                let key_type = [KeyType::P256, KeyType::P384].into_iter();
                let mut key_type = key_type.filter(|of| of.curve().is_some_and(|(name, _)| name == curve));
                let key_type = key_type.next()?;
                let (_, coordinate) = key_type.curve()?;
                let (x, y) = (part("x")?, part("y")?);
                let fits = x.len() == coordinate && y.len() == coordinate;
                fits.then(|| (key_type, [&[UNCOMPRESSED], &x[..], &y].concat()))?
            }
            _ => return None,
        };
        Some(VerifyingKey { key_type, bytes, id: str_at(jwk, &["kid"]).to_owned() })
    }

    /// Modulus and exponent out of the `RSAPublicKey`: a sequence of two integers.
    fn rsa_components(&self) -> (&[u8], &[u8]) {
        let (content, _) = der_content(&self.bytes);
        let (n, rest) = der_content(content);
        let (e, _) = der_content(rest);
        // A leading zero only keeps the integer positive.
        let unsigned = |bytes| <[u8]>::strip_prefix(bytes, &[0]).unwrap_or(bytes);
        (unsigned(n), unsigned(e))
    }

    pub(super) fn accepts(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        algorithm.key_type() == self.key_type
            && UnparsedPublicKey::new(algorithm.verification(), &self.bytes)
                .verify(message, signature)
                .is_ok()
    }
}

/// The DER SubjectPublicKeyInfo of a key: algorithm identifier and bit string.
fn subject_public_key_info(key_type: KeyType, key: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const EC_P256: &[u8] =
        b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const EC_P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
    let identifier = match key_type {
        KeyType::Rsa => RSA_ENCRYPTION,
        KeyType::P256 => EC_P256,
        KeyType::P384 => EC_P384,
    };
    let bits = der(0x03, &[&[0], key].concat());
    der(0x30, &[identifier, &bits].concat())
}

/// An unsigned number as a DER integer: one that would look negative gets a leading zero.
fn integer(unsigned: &[u8]) -> Vec<u8> {
    let significant = &unsigned[unsigned.iter().take_while(|b| **b == 0).count()..];
    let zero: &[u8] = if significant.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    der(0x02, &[zero, significant].concat())
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

/// The content of the DER element in front, and what follows it. The bytes are ring's own encoding, or ours.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
        let point = |crv: &str, length: usize| {
            let part = URL_SAFE_NO_PAD.encode(vec![1; length]);
            json!({"kty": "EC", "crv": crv, "x": part, "y": part})
        };
        assert!(VerifyingKey::from_jwk(&point("P-256", 32)).is_some());
        assert!(VerifyingKey::from_jwk(&point("P-384", 48)).is_some());
        assert!(VerifyingKey::from_jwk(&point("P-384", 32)).is_none());
        assert!(VerifyingKey::from_jwk(&point("P-521", 66)).is_none());
        let mut encrypting = point("P-256", 32);
        encrypting["use"] = "enc".into();
        assert!(VerifyingKey::from_jwk(&encrypting).is_none());
        assert!(VerifyingKey::from_jwk(&json!({"kty": "oct", "k": "AAAA"})).is_none());
    }

    #[test]
    fn long_der_lengths_are_written_in_long_form() {
        assert_eq!(der(4, &[0; 3])[..2], [4, 3]);
        assert_eq!(der(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(der(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }

    proptest! {
        #[test]
        fn a_published_rsa_key_reads_back(n in proptest::collection::vec(any::<u8>(), 1..300), e in 1u32..) {
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let jwk = json!({"kty": "RSA", "n": encode(&n), "e": encode(&e.to_be_bytes()), "kid": "k"});
            let key = VerifyingKey::from_jwk(&jwk).expect("is a key");
            prop_assert_eq!(VerifyingKey::from_jwk(&key.to_jwk()), Some(key));
        }
    }
}
