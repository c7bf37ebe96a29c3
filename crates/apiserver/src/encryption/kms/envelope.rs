//! What an object encrypted by way of a plugin looks like: the wrapped source of its key beside the data. Pure.
//! Follows `ValidateEncryptedObject` and `extendedNonceGCM`.

use prost::Message as _;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};

use super::super::cipher::{Algorithm, Cipher, CipherError, random};
use super::proto::{
    AES_GCM_KEY, Annotations, EncryptResponse, EncryptedObject, HKDF_SHA256_XNONCE_AES_GCM_SEED,
};

/// Of a key's id in bytes (upstream: KeyIDMaxSize).
const KEY_ID_MAX: usize = 1 << 10;
/// Of a wrapped source in bytes (upstream: encryptedDEKSourceMaxSize).
const SOURCE_MAX: usize = 1 << 10;
/// Of all annotations together in bytes (upstream: annotationsMaxSize).
const ANNOTATIONS_MAX: usize = 32 << 10;
/// How many bytes derive an object's key from the seed.
const INFO_BYTES: usize = 32;
const SEED_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("{0}")]
    Undecodable(String),
    #[error("unknown encryptedDEKSourceType: {0}")]
    SourceType(i32),
    #[error("encrypted data is empty")]
    NoData,
    #[error("failed to validate encrypted DEK source: encrypted DEK source is empty")]
    NoSource,
    #[error(
        "failed to validate encrypted DEK source: encrypted DEK source is {0} bytes, which exceeds the max size of {max}",
        max = SOURCE_MAX
    )]
    LongSource(usize),
    #[error("failed to validate key id: {0}")]
    KeyId(#[from] KeyIdError),
    #[error("failed to validate annotations: {0}")]
    Annotation(String),
    #[error(
        "failed to validate annotations: total size of annotations is {0}, which exceeds the max size of {max}",
        max = ANNOTATIONS_MAX
    )]
    LongAnnotations(usize),
    #[error("invalid seed length {0} used for key generation")]
    SeedLength(usize),
    #[error("crypto/aes: invalid key size {0}")]
    KeyLength(usize),
    #[error("{0}")]
    Cipher(#[from] CipherError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyIdError {
    #[error("keyID is empty")]
    Empty,
    #[error("keyID is {0} bytes, which exceeds the max size of {max}", max = KEY_ID_MAX)]
    TooLong(usize),
}

impl KeyIdError {
    /// As metrics count it.
    pub fn code(&self) -> &'static str {
        match self {
            KeyIdError::Empty => "empty",
            KeyIdError::TooLong(_) => "too_long",
        }
    }
}

pub fn validate_key_id(key_id: &str) -> Result<(), KeyIdError> {
    match key_id.len() {
        0 => Err(KeyIdError::Empty),
        long if long > KEY_ID_MAX => Err(KeyIdError::TooLong(long)),
        _ => Ok(()),
    }
}

/// A source of keys as a plugin has wrapped it, with which it can be asked to unwrap it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wrapped {
    pub source_type: i32,
    pub key_id: String,
    pub source: Vec<u8>,
    pub annotations: Annotations,
}

impl Wrapped {
    /// What a plugin has made of a seed.
    pub fn seed(answer: EncryptResponse) -> Result<Wrapped, EnvelopeError> {
        let wrapped = Wrapped {
            source_type: HKDF_SHA256_XNONCE_AES_GCM_SEED,
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations,
        };
        wrapped.validate()?;
        Ok(wrapped)
    }

    fn validate(&self) -> Result<(), EnvelopeError> {
        if ![AES_GCM_KEY, HKDF_SHA256_XNONCE_AES_GCM_SEED].contains(&self.source_type) {
            return Err(EnvelopeError::SourceType(self.source_type));
        }
        match self.source.len() {
            0 => return Err(EnvelopeError::NoSource),
            long if long > SOURCE_MAX => return Err(EnvelopeError::LongSource(long)),
            _ => validate_key_id(&self.key_id)?,
        }
        if let Some(name) = self.annotations.keys().find(|name| !is_qualified(name)) {
            let why = format!(
                "Invalid value: {name:?}: should be a domain with at least two segments separated by dots"
            );
            return Err(EnvelopeError::Annotation(format!("annotations: {why}")));
        }
        let size = self.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > ANNOTATIONS_MAX {
            return Err(EnvelopeError::LongAnnotations(size));
        }
        Ok(())
    }

    /// The object as it lies on disk.
    pub fn encode(&self, encrypted_data: Vec<u8>) -> Vec<u8> {
        let object = EncryptedObject {
            encrypted_data,
            key_id: self.key_id.clone(),
            encrypted_dek_source: self.source.clone(),
            annotations: self.annotations.clone(),
            encrypted_dek_source_type: self.source_type,
        };
        object.encode_to_vec()
    }

    /// The reverse of [`Wrapped::encode`].
    pub fn decode(bytes: &[u8]) -> Result<(Wrapped, Vec<u8>), EnvelopeError> {
        let object =
            EncryptedObject::decode(bytes).map_err(|error| EnvelopeError::Undecodable(error.to_string()))?;
        let wrapped = Wrapped {
            source_type: object.encrypted_dek_source_type,
            key_id: object.key_id,
            source: object.encrypted_dek_source,
            annotations: object.annotations,
        };
        if object.encrypted_data.is_empty() {
            return Err(EnvelopeError::NoData);
        }
        wrapped.validate()?;
        Ok((wrapped, object.encrypted_data))
    }
}

/// A DNS name of at least two parts (upstream: IsFullyQualifiedDomainName).
fn is_qualified(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.contains('.') && apimachinery::names::is_dns1123_subdomain(name).is_empty()
}

/// Where keys come from, in the clear.
#[derive(Clone)]
pub enum Source {
    Seed(Vec<u8>),
    Key(Cipher),
}

/// Says nothing of the key.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    pub fn random_seed() -> Vec<u8> {
        random::<SEED_BYTES>().to_vec()
    }

    pub fn new(source_type: i32, plaintext: Vec<u8>) -> Result<Source, EnvelopeError> {
        let length = plaintext.len();
        match source_type {
            HKDF_SHA256_XNONCE_AES_GCM_SEED if length < SEED_BYTES => Err(EnvelopeError::SeedLength(length)),
            HKDF_SHA256_XNONCE_AES_GCM_SEED => Ok(Source::Seed(plaintext)),
            _ => Cipher::new(Algorithm::AesGcm, plaintext)
                .map(Source::Key)
                .ok_or(EnvelopeError::KeyLength(length)),
        }
    }

    pub fn seal(&self, place: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Source::Key(cipher) => cipher.seal(place, data),
            Source::Seed(seed) => {
                let info = random::<INFO_BYTES>();
                [&info[..], &derived(seed, &info).seal(place, data)].concat()
            }
        }
    }

    pub fn open(&self, place: &[u8], data: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        match self {
            Source::Key(cipher) => Ok(cipher.open(place, data)?),
            Source::Seed(seed) => {
                let (info, sealed) = data.split_at_checked(INFO_BYTES).ok_or(CipherError::TooShort)?;
                Ok(derived(seed, info).open(place, sealed)?)
            }
        }
    }
}

/// AES-GCM with the key that belongs to these bytes.
fn derived(seed: &[u8], info: &[u8]) -> Cipher {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = vec![0; Length.len()];
    Prk::new_less_safe(HKDF_SHA256, seed)
        .expand(&[info], Length)
        .and_then(|stream| stream.fill(&mut key))
        .expect("a key is far shorter than what may be derived");
    Cipher::new(Algorithm::AesGcm, key).expect("it is as long as a key of AES-256")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped() -> Wrapped {
        let annotations = [("kms.example.com".to_owned(), vec![1])].into();
        Wrapped { source_type: 1, key_id: "k".to_owned(), source: vec![7], annotations }
    }

    fn check(change: impl FnOnce(&mut Wrapped), expect: &str) {
        let mut wrapped = wrapped();
        change(&mut wrapped);
        let found = Wrapped::decode(&wrapped.encode(vec![0]));
        let found = found.map_or_else(|error| error.to_string(), |_| "ok".to_owned());
        assert!(found.starts_with(expect), "{found}");
    }

    #[test]
    fn what_a_plugin_answers_is_checked_as_upstream_checks_it() {
        check(|_| {}, "ok");
        check(|w| w.source_type = 2, "unknown encryptedDEKSourceType: 2");
        check(|w| w.source.clear(), "failed to validate encrypted DEK source: encrypted DEK source is empty");
        check(
            |w| w.source = vec![0; 1025],
            "failed to validate encrypted DEK source: encrypted DEK source is 1025 bytes, which exceeds the max size of 1024",
        );
        check(|w| w.key_id.clear(), "failed to validate key id: keyID is empty");
        check(
            |w| w.key_id = "k".repeat(1025),
            "failed to validate key id: keyID is 1025 bytes, which exceeds the max size of 1024",
        );
        check(
            |w| drop(w.annotations.insert("bare".to_owned(), Vec::new())),
            "failed to validate annotations: annotations: Invalid value: \"bare\"",
        );
        check(
            |w| drop(w.annotations.insert("a.b".to_owned(), vec![0; ANNOTATIONS_MAX])),
            "failed to validate annotations: total size of annotations is 32787",
        );
        assert_eq!(Wrapped::decode(&wrapped().encode(Vec::new())), Err(EnvelopeError::NoData));
    }

    #[test]
    fn keys_are_derived_as_upstream_derives_them() {
        // RFC 5869, test case 1, without its first step.
        let seed = [
            0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f, 0x0d, 0xc4, 0x7b, 0xba, 0x63,
            0x90, 0xb6, 0xc7, 0x3b, 0xb5, 0x0f, 0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a, 0xd7, 0xc2, 0xb3, 0xe5,
        ];
        let info = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9];
        let key = [
            0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36, 0x2f, 0x2a,
            0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56, 0xec, 0xc4, 0xc5, 0xbf,
        ];
        let sealed = derived(&seed, &info).seal(b"place", b"data");
        let expect = Cipher::new(Algorithm::AesGcm, key.to_vec()).expect("a key");
        assert_eq!(expect.open(b"place", &sealed), Ok(b"data".to_vec()));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_in_its_place_only(data in prop::collection::vec(any::<u8>(), 0..100)) {
            for source_type in [AES_GCM_KEY, HKDF_SHA256_XNONCE_AES_GCM_SEED] {
                let source = Source::new(source_type, Source::random_seed()).expect("long enough");
                let sealed = source.seal(b"here", &data);
                prop_assert_eq!(source.open(b"here", &sealed), Ok(data.clone()));
                prop_assert!(source.open(b"there", &sealed).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_without_harm(data in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, sealed)) = Wrapped::decode(&data) {
                let source = Source::new(1, Source::random_seed()).expect("long enough");
                prop_assert!(source.open(b"", &sealed).is_err());
            }
        }
    }
}
