//! Domain names. Compared without regard to case, kept as they were written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1035 section 2.3.4: bytes of a label, and of a whole name as sent.
const LABEL_LEN_MAX: usize = 63;
const NAME_LEN_MAX: usize = 255;

/// A name's labels, from the most specific; the root has none.
#[derive(Clone, Debug, Default)]
pub struct Name(Vec<Vec<u8>>);

impl Name {
    /// From dotted text; `None` if it is not a name.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Some(Name::default());
        }
        Name::from_labels(text.split('.').map(|label| label.as_bytes().to_vec()).collect())
    }

    pub(super) fn from_labels(labels: Vec<Vec<u8>>) -> Option<Name> {
        let valid = labels.iter().all(|label| !label.is_empty() && label.len() <= LABEL_LEN_MAX);
        let length: usize = labels.iter().map(|label| label.len() + 1).sum();
        (valid && length < NAME_LEN_MAX).then_some(Name(labels))
    }

    pub fn labels(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The labels before `suffix` in lower case; `None` if the name does not end in it, or holds
    /// bytes that no Kubernetes name holds.
    pub fn under(&self, suffix: &Name) -> Option<Vec<String>> {
        let count = self.0.len().checked_sub(suffix.0.len())?;
        let (own, rest) = self.0.split_at(count);
        let equal = rest.iter().zip(&suffix.0).all(|(a, b)| a.eq_ignore_ascii_case(b));
        if !equal {
            return None;
        }
        own.iter().map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase())).collect()
    }

    pub fn is_under(&self, suffix: &Name) -> bool {
        let Some(count) = self.0.len().checked_sub(suffix.0.len()) else { return false };
        self.0[count..].iter().zip(&suffix.0).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    /// `label` in front of this name; `None` if it does not fit.
    pub fn child(&self, label: &str) -> Option<Name> {
        let mut labels = vec![label.as_bytes().to_vec()];
        labels.extend_from_slice(&self.0);
        Name::from_labels(labels)
    }

    /// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
    pub fn reverse_address(&self) -> Option<IpAddr> {
        let v4 = Name::parse("in-addr.arpa").and_then(|suffix| self.under(&suffix));
        if let Some(labels) = v4 {
            let octets: Vec<u8> =
                labels.iter().rev().map(|label| label.parse().ok()).collect::<Option<_>>()?;
            return Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)));
        }
        let labels = self.under(&Name::parse("ip6.arpa")?)?;
        if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
            return None;
        }
        let number: String = labels.into_iter().rev().collect();
        Some(IpAddr::V6(Ipv6Addr::from(u128::from_str_radix(&number, 16).ok()?)))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.len() == other.0.len() && self.is_under(other)
    }
}

impl Eq for Name {}

/// In lower case, so that equal names read alike.
impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in &self.0 {
            write!(formatter, "{}.", String::from_utf8_lossy(label).to_ascii_lowercase())?;
        }
        if self.0.is_empty() { formatter.write_str(".") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn names_compare_without_case_and_read_relative_to_a_zone() {
        assert_eq!(name("Kubernetes.Default.svc"), name("kubernetes.default.SVC."));
        let own = name("Web.ns.svc.Cluster.local").under(&name("cluster.local")).expect("under the zone");
        assert_eq!(own, ["web", "ns", "svc"]);
        assert_eq!(name("example.org").under(&name("cluster.local")), None);
    }

    #[test]
    fn limits_of_rfc_1035_hold() {
        assert!(Name::parse(&"a".repeat(63)).is_some());
        assert!(Name::parse(&"a".repeat(64)).is_none());
        let long = vec!["a".repeat(49); 5].join(".");
        assert!(Name::parse(&format!("{long}.abc")).is_some(), "255 bytes");
        assert!(Name::parse(&format!("{long}.abcd")).is_none(), "256 bytes");
        assert!(Name::parse("a..b").is_none());
    }

    #[test]
    fn reverse_names_give_their_address() {
        let expect = |text: &str, address: &str| {
            assert_eq!(name(text).reverse_address(), Some(address.parse().expect("an address")), "{text}");
        };
        expect("2.0.244.10.in-addr.arpa", "10.244.0.2");
        expect(
            "8.b.d.0.1.0.0.2.ip6.arpa".replace("8.b", &format!("1.{}8.b", "0.".repeat(23))).as_str(),
            "2001:db8::1",
        );
        assert_eq!(name("0.244.10.in-addr.arpa").reverse_address(), None);
        assert_eq!(name("300.0.244.10.in-addr.arpa").reverse_address(), None);
    }
}
