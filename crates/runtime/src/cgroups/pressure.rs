//! Time lost for want of a resource (PSI), which the kernel tells alike of a version 2 cgroup and of the whole node.

use crate::cri::{PsiData, PsiStats};

const NANOS_PER_MICRO: u64 = 1000;

/// Reads a text such as that of `/proc/pressure/memory`; nothing where the kernel does not tell.
pub fn parse(text: &str) -> Option<PsiStats> {
    let data = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let number = |key: &str| line.split_whitespace().find_map(|pair| pair.strip_prefix(key));
        let average = |key: &str| number(key)?.parse().ok();
        Some(PsiData {
            total: number("total=")?.parse::<u64>().ok()?.saturating_mul(NANOS_PER_MICRO),
            avg10: average("avg10=")?,
            avg60: average("avg60=")?,
            avg300: average("avg300=")?,
        })
    };
    // Older kernels do not tell how long all wait for a processor.
    Some(PsiStats { some: Some(data("some ")?), full: Some(data("full ").unwrap_or_default()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_where_the_kernel_tells_it() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let found = parse(text).expect("is there");
        let (some, full) = (found.some.unwrap(), found.full.unwrap());
        assert_eq!((some.avg10, some.avg60, some.total, full.total), (1.5, 0.25, 12_345_000, 7000));
        assert!(parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").is_some());
        assert_eq!(parse(""), None);
    }
}
