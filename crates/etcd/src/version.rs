//! Versions of etcd, and what can be relied on since which.

use std::str::FromStr;

/// `3.6.8`; what follows the third number is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// The first releases of two branches in which an answer to a progress request never overtakes an event (etcd issues
/// 15220 and 17507).
const PROGRESS_3_4: Version = Version(3, 4, 31);
const PROGRESS_3_5: Version = Version(3, 5, 13);

impl Version {
    /// Whether progress of a watch can be asked for and believed. Follows `storage/feature`.
    pub fn has_progress_requests(self) -> bool {
        self >= PROGRESS_3_5 || (self >= PROGRESS_3_4 && self < Version(3, 5, 0))
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Version, Self::Err> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = plain.splitn(3, '.').map(str::parse);
        let mut number = || numbers.next().unwrap_or(Ok(0));
        Ok(Version(number()?, number()?, number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_requests_are_believed_since_they_are_right() {
        for (text, expect) in [
            ("3.3.27", false),
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.0", false),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.6.8", true),
        ] {
            let version: Version = text.parse().expect("a version");
            assert_eq!(version.has_progress_requests(), expect, "{text}");
        }
        assert!("new".parse::<Version>().is_err());
    }
}
