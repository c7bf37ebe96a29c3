//! When a certificate begins and ends to hold, and when it is to be renewed. Pure.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Identity;

/// A certificate is renewed after this part of its life ...
const RENEW_FROM: f64 = 0.7;
/// ... and up to this much later, so that not all nodes come at once (upstream: `jitteryDuration`).
const SPREAD: f64 = 0.2;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lifetime {
    not_before: Timestamp,
    not_after: Timestamp,
    /// From 0 to 1.
    jitter: f64,
}

/// None if it is no certificate. The jitter is taken of the signature's last bytes, which are as good as random and the
/// same whenever the certificate is looked at.
pub fn of(identity: &Identity) -> Option<Lifetime> {
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    let last: [u8; 2] = der.last_chunk().copied()?;
    Some(Lifetime {
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        jitter: f64::from(u16::from_be_bytes(last)) / f64::from(u16::MAX),
    })
}

impl Lifetime {
    pub fn holds(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub fn renew_at(&self) -> Timestamp {
        let whole = self.not_after.duration_since(self.not_before);
        let part = RENEW_FROM + SPREAD * self.jitter;
        self.not_before + whole.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_renewed_between_seven_and_nine_tenths_of_its_life(seconds in 1_i64..400_000_000, jitter in 0.0..=1.0) {
            let not_before = Timestamp::UNIX_EPOCH;
            let life = SignedDuration::from_secs(seconds);
            let lifetime = Lifetime { not_before, not_after: not_before + life, jitter };
            let part = lifetime.renew_at().duration_since(not_before).as_secs_f64() / life.as_secs_f64();
            prop_assert!((0.699..=0.901).contains(&part), "{part}");
            prop_assert!(lifetime.holds(lifetime.renew_at()));
            prop_assert!(!lifetime.holds(lifetime.not_after));
        }
    }
}
