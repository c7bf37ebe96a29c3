//! Private keys in the forms in which authorities have them: PKCS #8, and what it wraps, as kubeadm and `openssl` write
//! RSA (PKCS #1, RFC 8017) and elliptic curves (SEC 1, RFC 5915).

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::{Error, tlv};

/// DER of the identifiers of keys' algorithms.
const RSA: [u8; 13] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
const EC: [u8; 9] = [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// And of the curves that sign here: P-256 and P-384. A key of an elliptic curve says which it is of.
const CURVES: [&[u8]; 2] =
    [&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22]];

/// The key in a PEM text.
pub fn read(pem: &str) -> Result<KeyPair, Error> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| Error::Pem(error.to_string()))?;
    let pkcs8 = match der {
        PrivateKeyDer::Pkcs8(key) => key,
        PrivateKeyDer::Pkcs1(key) => wrapped(&RSA, key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => {
            let key = key.secret_sec1_der();
            let is_of = |curve: &&[u8]| key.windows(curve.len()).any(|part| part == *curve);
            let curve = CURVES.into_iter().find(is_of).ok_or(Error::Algorithm)?;
            wrapped(&[&EC, curve].concat(), key)
        }
        _ => return Err(Error::Algorithm),
    };
    Ok(KeyPair::try_from(&PrivateKeyDer::Pkcs8(pkcs8))?)
}

/// Version 0, what algorithm the key is for, and the key.
fn wrapped(algorithm: &[u8], key: &[u8]) -> PrivatePkcs8KeyDer<'static> {
    let content = [vec![0x02, 1, 0], tlv(0x30, algorithm), tlv(0x04, key)].concat();
    tlv(0x30, &content).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl ecparam -genkey` and `openssl genrsa -traditional` have written them.
    const EC_KEY: &str = "\
-----BEGIN EC PARAMETERS-----\n\
BggqhkjOPQMBBw==\n\
-----END EC PARAMETERS-----\n\
-----BEGIN EC PRIVATE KEY-----\n\
MHcCAQEEINTd03plRo5Bba0yF9bjN+/hwFjXAPaqHFmlcRVf4T4noAoGCCqGSM49\n\
AwEHoUQDQgAEgkRzFkKlIkp6H7p/dc8Pl1RO19Z8ZRRtyR0+uhhv7sQ3Lh3ZdTSg\n\
NlXiBNt1t8hwKcm9cpJodfuWm9CLsuB5hQ==\n\
-----END EC PRIVATE KEY-----\n\
";
    const RSA_KEY: &str = "\
-----BEGIN RSA PRIVATE KEY-----\n\
MIIEowIBAAKCAQEAztu7kLlgfD9IQ+kSqLI3zCKNtuyF3zNZESAcF/4pWLljfJNZ\n\
1ifPTZo1cqw734cJC5gSJxU/m1oMumr1YEFGLdKAdN7g4WsHzLEcgC2XtiSSXhRH\n\
5jzcDp9G+azS2x1Gh/X0U6lHpCQhvoa05b7LZry4RJIyaUsmchBefL4Yioy7pOz1\n\
tjwyf08l12GuNjp8udPrcMTdMAQZeilzhERKh/wWzEFcvI6R2uHn3jKgvQgvC0aN\n\
NpfOUcC/7Md1YoEs8QoUcj8YlcjvMml4nLIr3Zvym23uAf22fABfUD5bULaVDRCK\n\
WXvewuWCDiFuEryOFz3Vh8WFgQkxHnJd3I8YuQIDAQABAoIBAAMjcv6+IUhL+X+2\n\
ReczVQS5iCbnWHH2KHrJtENqQscAK7yUdmojuSch7ipVkfmmkII8MMJRCzcDMGrq\n\
UTDAV3KTMrRokUbk8H2wOOYk9Zv42r5SAR6YJnU+VhMBsUKhI2nQAdX8coQmBtu0\n\
1YJ1g5vabyfzLo/0aO/qxFQ7hMnNU9Ybg707ARbx1updBzVB4q1GsI16lwPS/c4d\n\
YzSo36Y7e4nVc7lw6QawGA/W53tQpmGXy/xq5+oPOHjDYhkc/fqNtM3B2uz+vdHZ\n\
Lr6sdp0Gxp7YwaLeIFzI2UrmkyA5kT2OD/DESkCXikvYuGOLizDBkV7JelRHccGW\n\
cmSrnmUCgYEA6zkQnlJgMUQJXZer7OZHkYstyLNps5pfp9bwlKt+8o04woXptlGL\n\
JVlsQqjWKCpk/BGfME1Im2/swK7mLL14zu6aFy8EsQ0ZVR6rQjcxHWHxIqJ4OVD1\n\
17goM7zGU44qmV6EtCFeTuOHSZyETyKcGDQR+UZRpaFeojSHp8Tx6q8CgYEA4SFH\n\
Zd+XcDWgcZrHdV/NLMrrAdPN3KtaZCL1P3ewPQFAV3RYG2rvkKdGbFPABmBQNDMx\n\
Yi1ObT+YITr/3wtkbZLz+UgJOb6qlhA5S/lnUpVmE3Am7YPdaoCX3xbkldfSwBds\n\
/F39CAzn52qSgSIXWIuykI6kwwPax6HcpEwh7RcCgYBMeH7YmbtACPhqfvaby7mU\n\
rYSy7PD+PL/AVvZbvu1EeXjsdJCofxYXjFzPxwfogu/VqvzvvRBPyDFV6wZVoTt3\n\
OsbJprWFwdZsf835duv2u3KjaeJf79wcx3f6afKoE13yAnJuBTMdvoaq/cFd4MiS\n\
bcsyGRROHooffahkeHiVbQKBgQCaxkZPw2hZvISRldeK2lI0eU0X9IWTMDr0nRP+\n\
jkqbpkCV32azctFAob/IuctKluyM9qT82ikQ8qekMOu4bByfOGiC+QNer7aXdI/v\n\
q4ddP1juBCy/HekbT00aEqMUYUyCw5gp6HQNFNJaRupx3P4v4drhhy++4ueGV8FZ\n\
Mv4gAQKBgGdfcfmvqP1kWgakAdlThG9L+02K8j6rPLk5EW39o8lZBzTqOCOq5Sd8\n\
pK7jEufqQkE4rFywO/IHu8GNs+DoUdoOlqwB9tlTPwlXlBNZ+Sc+U7EkbrFlBgAB\n\
c8gJJJrTZZHVTH/OsdKv1Enp1D6PXZO5/aidYwWC9aSjxbW3rV3O\n\
-----END RSA PRIVATE KEY-----\n\
";

    #[test]
    fn keys_of_every_form_sign() {
        let algorithm = |pem: &str| read(pem).expect("a key").algorithm();
        assert!(algorithm(EC_KEY) == &rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(algorithm(RSA_KEY) == &rcgen::PKCS_RSA_SHA256);
        let generated = KeyPair::generate().expect("a key");
        assert!(algorithm(&generated.serialize_pem()) == &rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(read("nonsense").is_err());
    }
}
