//! What a node has beside CPU, memory and storage: devices that plugins offer, and huge pages.

use apimachinery::Value;
use apimachinery::quantity::{Format, Quantity};

use crate::cm::devicemanager::Counts;
use crate::hugepages::HugePages;

/// Puts them into a node's status.
pub fn add(status: &mut Value, devices: &Counts, huge_pages: &[HugePages]) {
    for (resource, count) in devices {
        status["capacity"][resource] = count.capacity.to_string().into();
        status["allocatable"][resource] = count.allocatable.to_string().into();
    }
    for pages in huge_pages {
        for list in ["capacity", "allocatable"] {
            status[list][pages.resource()] =
                Quantity::new(pages.bytes(), Format::BinarySi).to_string().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::cm::devicemanager::Count;

    #[test]
    fn devices_are_counted_and_huge_pages_measured() {
        let mut status = json!({"capacity": {"cpu": "1", "hugepages-2Mi": "0"}, "allocatable": {}});
        let devices = Counts::from([("a.b/c".to_owned(), Count { capacity: 3, allocatable: 2 })]);
        add(&mut status, &devices, &[HugePages { size: 2 << 20, count: 5 }]);
        assert_eq!(
            status,
            json!({"capacity": {"cpu": "1", "a.b/c": "3", "hugepages-2Mi": "10Mi"},
                "allocatable": {"a.b/c": "2", "hugepages-2Mi": "10Mi"}})
        );
    }
}
