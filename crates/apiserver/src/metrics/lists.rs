//! What lists cost, under the names that upstream has for those that its watch cache answers: here memory answers all.

use std::fmt::Result;

use api::catalogue::Kind;

use crate::prometheus::{Counters, Label, Metric};

const LISTS: Metric<3> = Metric {
    name: "apiserver_cache_list_total",
    help: "[ALPHA] Number of LIST requests served from watch cache",
    labels: ["group", "index", "resource"],
};
const FETCHED: Metric<3> = Metric {
    name: "apiserver_cache_list_fetched_objects_total",
    help: "[ALPHA] Number of objects read from watch cache in the course of serving a LIST request",
    labels: ["group", "index", "resource"],
};
const RETURNED: Metric<2> = Metric {
    name: "apiserver_cache_list_returned_objects_total",
    help: "[ALPHA] Number of objects returned for a LIST request from watch cache",
    labels: ["group", "resource"],
};

#[derive(Debug)]
pub struct Lists {
    lists: Counters<3>,
    fetched: Counters<3>,
    returned: Counters<2>,
}

impl Default for Lists {
    fn default() -> Self {
        Lists {
            lists: Counters::new(LISTS),
            fetched: Counters::new(FETCHED),
            returned: Counters::new(RETURNED),
        }
    }
}

impl Lists {
    /// A list for which so many objects were looked at, and so many of them went into the answer.
    pub fn served(&self, kind: &Kind, fetched: usize, returned: usize) {
        let (group, resource) = (Label::from(kind.resource.group), Label::from(kind.resource.plural));
        // There is no index: objects are found by namespace and name, and looked at.
        let labels = [group.clone(), Label::default(), resource.clone()];
        self.lists.add(labels.clone(), 1);
        self.fetched.add(labels, fetched as u64);
        self.returned.add([group, resource], returned as u64);
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.lists.write(out)?;
        self.fetched.write(out)?;
        self.returned.write(out)
    }
}
