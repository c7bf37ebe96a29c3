//! How fast a pod may receive and send, from its annotations. Follows upstream's
//! `bandwidth.ExtractPodBandwidthResources`.

use std::collections::HashMap;

use apimachinery::quantity::Quantity;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

/// The least and most that make sense, 1k and 1P.
const BITS_PER_SECOND: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// Limits in bits per second; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress: Option<u64>,
    /// From the pod.
    pub egress: Option<u64>,
}

/// An annotation that says nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}={value:?} is not a bandwidth between 1k and 1P")]
pub struct BadBandwidth {
    annotation: &'static str,
    value: String,
}

impl Bandwidth {
    pub fn of(annotations: &HashMap<String, String>) -> Result<Bandwidth, BadBandwidth> {
        let read = |annotation: &'static str| {
            let Some(value) = annotations.get(annotation) else { return Ok(None) };
            let bits =
                value.parse::<Quantity>().ok().and_then(|quantity| u64::try_from(quantity.value()).ok());
            match bits.filter(|bits| BITS_PER_SECOND.contains(bits)) {
                Some(bits) => Ok(Some(bits)),
                None => Err(BadBandwidth { annotation, value: value.clone() }),
            }
        };
        Ok(Bandwidth { ingress: read(INGRESS)?, egress: read(EGRESS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_quantities_within_bounds() {
        let of = |value: &str| Bandwidth::of(&HashMap::from([(INGRESS.to_owned(), value.to_owned())]));
        assert_eq!(of("10M"), Ok(Bandwidth { ingress: Some(10_000_000), egress: None }));
        for bad in ["", "fast", "999", "2P", "-1k"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
