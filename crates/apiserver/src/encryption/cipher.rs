//! The ciphers of the providers, each with its key. What they write reads back with upstream, and the reverse.
//! Follows `encrypt/aes` and `encrypt/secretbox`.

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::rand::{SecureRandom, SystemRandom};

const CBC_IV_BYTES: usize = 16;
const GCM_NONCE_BYTES: usize = 12;
const SECRETBOX_NONCE_BYTES: usize = 24;

/// Key lengths in bytes, as validation tells them.
pub const AES_KEYS: [usize; 3] = [16, 24, 32];
pub const SECRETBOX_KEYS: [usize; 1] = [32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    AesCbc,
    AesGcm,
    Secretbox,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    #[error("the stored data was shorter than the required size")]
    TooShort,
    #[error("the stored data is not a multiple of the block size")]
    NoBlocks,
    #[error("invalid padding on input")]
    Padding,
    #[error("cipher: message authentication failed")]
    Authentication,
}

/// An algorithm with a key of a length that it takes.
#[derive(Clone)]
pub struct Cipher {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl Algorithm {
    pub fn key_lengths(self) -> &'static [usize] {
        match self {
            Algorithm::AesCbc | Algorithm::AesGcm => &AES_KEYS,
            Algorithm::Secretbox => &SECRETBOX_KEYS,
        }
    }
}

impl Cipher {
    /// None for a key of another length.
    pub fn new(algorithm: Algorithm, key: Vec<u8>) -> Option<Cipher> {
        algorithm.key_lengths().contains(&key.len()).then_some(Cipher { algorithm, key })
    }

    /// `place` is authenticated where the algorithm can.
    pub fn seal(&self, place: &[u8], data: &[u8]) -> Vec<u8> {
        match self.algorithm {
            Algorithm::AesCbc => {
                let iv = random::<CBC_IV_BYTES>();
                [&iv[..], &self.cbc_encrypt(&iv, data)].concat()
            }
            Algorithm::AesGcm => {
                let nonce = random::<GCM_NONCE_BYTES>();
                let sealed = self.gcm(|gcm| gcm.seal(&nonce, Payload { msg: data, aad: place }));
                [&nonce[..], &sealed.expect("objects are far smaller than what one nonce is good for")]
                    .concat()
            }
            Algorithm::Secretbox => {
                let nonce = random::<SECRETBOX_NONCE_BYTES>();
                let sealed = self.secretbox().encrypt(&nonce.into(), data);
                [&nonce[..], &sealed.expect("memory takes any length")].concat()
            }
        }
    }

    pub fn open(&self, place: &[u8], data: &[u8]) -> Result<Vec<u8>, CipherError> {
        let first = match self.algorithm {
            Algorithm::AesCbc => CBC_IV_BYTES,
            Algorithm::AesGcm => GCM_NONCE_BYTES,
            Algorithm::Secretbox => SECRETBOX_NONCE_BYTES,
        };
        let (nonce, sealed) = data.split_at_checked(first).ok_or(CipherError::TooShort)?;
        match self.algorithm {
            Algorithm::AesCbc if sealed.len() % CBC_IV_BYTES != 0 => Err(CipherError::NoBlocks),
            Algorithm::AesCbc => self.cbc_decrypt(nonce, sealed).ok_or(CipherError::Padding),
            Algorithm::AesGcm => self
                .gcm(|gcm| gcm.open(nonce, Payload { msg: sealed, aad: place }))
                .ok_or(CipherError::Authentication),
            Algorithm::Secretbox => {
                let opened = self.secretbox().decrypt(nonce.into(), sealed);
                opened.map_err(|_| CipherError::Authentication)
            }
        }
    }

    fn cbc_encrypt(&self, iv: &[u8], data: &[u8]) -> Vec<u8> {
        const FITS: &str = "key and iv have lengths that the cipher takes";
        let key = &self.key;
        match key.len() {
            16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv)
                .expect(FITS)
                .encrypt_padded_vec_mut::<Pkcs7>(data),
            24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, iv)
                .expect(FITS)
                .encrypt_padded_vec_mut::<Pkcs7>(data),
            _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv)
                .expect(FITS)
                .encrypt_padded_vec_mut::<Pkcs7>(data),
        }
    }

    fn cbc_decrypt(&self, iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let key = &self.key;
        match key.len() {
            16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
                .ok()?
                .decrypt_padded_vec_mut::<Pkcs7>(data)
                .ok(),
            24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(key, iv)
                .ok()?
                .decrypt_padded_vec_mut::<Pkcs7>(data)
                .ok(),
            _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
                .ok()?
                .decrypt_padded_vec_mut::<Pkcs7>(data)
                .ok(),
        }
    }

    fn gcm<T>(&self, work: impl FnOnce(&dyn Gcm) -> Option<T>) -> Option<T> {
        match self.key.len() {
            16 => work(&AesGcm::<aes::Aes128, U12>::new_from_slice(&self.key).ok()?),
            24 => work(&AesGcm::<aes::Aes192, U12>::new_from_slice(&self.key).ok()?),
            _ => work(&AesGcm::<aes::Aes256, U12>::new_from_slice(&self.key).ok()?),
        }
    }

    fn secretbox(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new_from_slice(&self.key).expect("the key has the length that the cipher takes")
    }
}

/// AES-GCM with a key of any length.
trait Gcm {
    fn seal(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>>;
    fn open(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>>;
}

impl<C: Aead<NonceSize = U12>> Gcm for C {
    fn seal(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        self.encrypt(nonce.into(), payload).ok()
    }

    fn open(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        self.decrypt(nonce.into(), payload).ok()
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// Says nothing of the key.
impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [(Algorithm, usize); 7] = [
        (Algorithm::AesCbc, 16),
        (Algorithm::AesCbc, 24),
        (Algorithm::AesCbc, 32),
        (Algorithm::AesGcm, 16),
        (Algorithm::AesGcm, 24),
        (Algorithm::AesGcm, 32),
        (Algorithm::Secretbox, 32),
    ];

    fn cipher((algorithm, length): (Algorithm, usize)) -> Cipher {
        Cipher::new(algorithm, vec![7; length]).expect("a key of a length that it takes")
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_and_never_shows_through(data in prop::collection::vec(any::<u8>(), 0..100)) {
            for which in ALL {
                let cipher = cipher(which);
                let sealed = cipher.seal(b"place", &data);
                prop_assert_eq!(cipher.open(b"place", &sealed), Ok(data.clone()), "{:?}", which);
                prop_assert!(data.len() < 8 || !sealed.windows(data.len()).any(|part| part == data));
                prop_assert_ne!(cipher.seal(b"place", &data), sealed, "no two are the same");
            }
        }

        #[test]
        fn garbage_is_refused_without_harm(data in prop::collection::vec(any::<u8>(), 0..80)) {
            for which in ALL.into_iter().filter(|(algorithm, _)| *algorithm != Algorithm::AesCbc) {
                prop_assert!(cipher(which).open(b"", &data).is_err());
            }
            // AES-CBC tells of nothing but its padding.
            cipher((Algorithm::AesCbc, 32)).open(b"", &data).ok();
        }
    }

    #[test]
    fn only_the_right_key_in_the_right_place_opens() {
        let gcm = cipher((Algorithm::AesGcm, 32));
        let sealed = gcm.seal(b"here", b"data");
        assert_eq!(gcm.open(b"there", &sealed), Err(CipherError::Authentication));
        let other = Cipher::new(Algorithm::AesGcm, vec![8; 32]).expect("a key");
        assert_eq!(other.open(b"here", &sealed), Err(CipherError::Authentication));
        assert!(Cipher::new(Algorithm::Secretbox, vec![0; 16]).is_none());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let cipher = Cipher::new(Algorithm::Secretbox, vec![7; 32]).expect("a key");
        let sealed = cipher.seal(b"", b"data");
        assert_eq!(sealed.len(), SECRETBOX_NONCE_BYTES + 16 + 4, "nonce, tag, data");
        assert_eq!(cipher.open(b"", &sealed[..30]), Err(CipherError::Authentication));
        assert_eq!(cipher.open(b"", &sealed[..9]), Err(CipherError::TooShort));
    }
}
