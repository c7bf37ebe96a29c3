//! Huge pages: what the kernel has set aside, and what containers may have of them.

use std::path::Path;

use api::validation::HUGE_PAGES;
use api::view::core::ResourceList;
use apimachinery::quantity::{Format, Quantity};
use runtime::cri;

const KIB: i64 = 1024;

/// The huge pages of one size that the kernel has set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// In bytes.
    pub size: i64,
    pub count: i64,
}

impl HugePages {
    /// Every size that the kernel knows, the smallest first.
    pub fn read() -> Vec<HugePages> {
        HugePages::read_in(Path::new("/sys/kernel/mm/hugepages"))
    }

    /// Of the machine or of one NUMA node, in a folder as the kernel shows them.
    pub fn read_in(dir: &Path) -> Vec<HugePages> {
        let pages = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: i64 = name.strip_prefix(HUGE_PAGES)?.strip_suffix("kB")?.parse().ok()?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some(HugePages { size: kib * KIB, count: count.trim().parse().ok()? })
        };
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found: Vec<HugePages> = entries.filter_map(pages).collect();
        found.sort_by_key(|pages| pages.size);
        found
    }

    pub fn bytes(&self) -> i64 {
        self.size.saturating_mul(self.count)
    }

    /// What the API calls pages of this size.
    pub fn resource(&self) -> String {
        format!("{HUGE_PAGES}{}", Quantity::new(self.size, Format::BinarySi))
    }
}

/// Every size has a limit: pages that were not asked for are not to be had.
pub fn limits(limits: &ResourceList, sizes: &[i64]) -> Vec<cri::HugepageLimit> {
    let limit_of = |size: i64| {
        let wanted = limits.iter().find(|(name, _)| size_of(name) == Some(size));
        wanted.and_then(|(_, amount)| u64::try_from(amount.parse::<Quantity>().ok()?.value()).ok())
    };
    let limit = |size: &i64| cri::HugepageLimit {
        page_size: page_size_name(*size),
        limit: limit_of(*size).unwrap_or(0),
    };
    sizes.iter().map(limit).collect()
}

/// The size that a resource such as `hugepages-2Mi` stands for.
pub fn size_of(name: &str) -> Option<i64> {
    Some(name.strip_prefix(HUGE_PAGES)?.parse::<Quantity>().ok()?.value())
}

/// As the kernel names its files: `64KB`, `2MB`, `1GB`.
pub fn page_size_name(size: i64) -> String {
    match size {
        size if size >= KIB * KIB * KIB => format!("{}GB", size / (KIB * KIB * KIB)),
        size if size >= KIB * KIB => format!("{}MB", size / (KIB * KIB)),
        size => format!("{}KB", size / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_asked_for_and_none_else() {
        let wanted = ResourceList::from([("hugepages-2Mi".to_owned(), "4Mi".to_owned())]);
        let limits = limits(&wanted, &[2 << 20, 1 << 30]);
        let limits: Vec<(&str, u64)> =
            limits.iter().map(|limit| (limit.page_size.as_str(), limit.limit)).collect();
        assert_eq!(limits, [("2MB", 4 << 20), ("1GB", 0)]);
    }

    #[test]
    fn a_size_has_the_name_that_it_is_found_by() {
        for size in [64 << 10, 2 << 20, 1 << 30] {
            let pages = HugePages { size, count: 3 };
            assert_eq!((size_of(&pages.resource()), pages.bytes()), (Some(size), 3 * size));
        }
        assert_eq!(size_of("memory"), None);
    }
}
