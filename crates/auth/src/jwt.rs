//! Signed JSON web tokens in compact form (RFC 7515). The cluster's own are signed with RS256 or ES256; those of other
//! issuers may use any algorithm of [`Algorithm`].

mod key;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{self, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::pem;

use key::KeyType;
pub use key::{Algorithm, VerifyingKey};

/// The longest token looked at; ours are below 2 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What the cluster's own tokens are signed with.
pub const OWN: &[Algorithm] = &[Algorithm::RS256, Algorithm::ES256];

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

impl SigningKey {
    /// A new ECDSA P-256 key, as PKCS#8 PEM.
    pub fn generate_pem() -> Result<String, Error> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Signing)?;
        Ok(pem::encode("PRIVATE KEY", der.as_ref()))
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
        let public = VerifyingKey::new(KeyType::P256, pair.public_key().as_ref());
        SigningKey { pair: Pair::Ecdsa(Box::new(pair)), public }
    }

    fn rsa(pair: RsaKeyPair) -> Self {
        let public = VerifyingKey::new(KeyType::Rsa, pair.public_key().as_ref());
        SigningKey { pair: Pair::Rsa(Box::new(pair)), public }
    }

    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// The compact token that carries these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = Header { alg: self.public.usual().name(), kid: self.public.id() };
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

/// Checks the signature against the keys and reads the claims, which the caller has yet to judge. The header's algorithm
/// must be one of those allowed and fit the key that accepts: a token cannot choose how it is checked.
pub fn verify<C: DeserializeOwned>(
    token: &str,
    keys: &[VerifyingKey],
    allowed: &[Algorithm],
) -> Result<C, Error> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Error::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed);
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| Error::Malformed)?;
    let algorithm = Algorithm::parse(header.alg).filter(|algorithm| allowed.contains(algorithm));
    let algorithm = algorithm.ok_or(Error::Signature)?;
    let named = |key: &&VerifyingKey| header.kid.is_empty() || key.id() == header.kid;
    if !keys.iter().filter(named).any(|key| key.accepts(algorithm, message.as_bytes(), &signature)) {
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
    use apimachinery::{Value, json};

    use super::*;

    /// For tests only; guards nothing.
    const RSA: &[u8] = include_bytes!("jwt/rsa-for-tests.pem");
    const EC: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQoHM1+1YJMmXt1NW
2pfY7WvImDs4XPMP7SkSguZZOoChRANCAASxsYAaYGbLasRxpQHOAQjbJ1/cABmm
y0rSiGCsStZiWMmHnMpiTbTFFNZgohE0ExWJWGTzehNbTXHmhJottkL3
-----END PRIVATE KEY-----";

    fn read(token: &str, keys: &[VerifyingKey]) -> Result<Value, Error> {
        verify(token, keys, OWN)
    }

    fn key() -> SigningKey {
        SigningKey::from_pem(SigningKey::generate_pem().expect("a key").as_bytes()).expect("reads back")
    }

    #[test]
    fn a_signed_token_is_read_by_its_key_only() {
        let (ours, other) = (key(), key());
        let token = ours.sign(&json!({"sub": "x"})).expect("signs");
        let keys = [other.verifying_key().clone(), ours.verifying_key().clone()];
        assert_eq!(read(&token, &keys), Ok(json!({"sub": "x"})));
        assert_eq!(read(&token, &keys[..1]), Err(Error::Signature));
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
            assert_eq!(read(&token, std::slice::from_ref(public)), Ok(json!({"sub": "x"})));
            assert_eq!(verify::<Value>(&token, std::slice::from_ref(public), &[]), Err(Error::Signature));
            let jwk = public.to_jwk();
            assert_eq!(VerifyingKey::from_jwk(&jwk).as_ref(), Some(public));
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
        assert!(read(&forged, &keys).is_err());
        let none =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        assert_eq!(read(&none, &keys), Err(Error::Signature));
        for garbage in ["", ".", "a.b.c", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(read(garbage, &keys), Err(Error::Malformed), "{garbage}");
        }
    }
}
