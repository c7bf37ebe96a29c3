//! The name of a stored object, ordered as upstream's keys are.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Where an object is kept: `/registry/<resource>/<namespace>/<name>`.
///
/// `resource` is the plural, with the group behind a dot unless it is the core group: `pods`, `deployments.apps`.
/// `namespace` is empty for objects that live in none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    /// The key of an object in a namespace; an empty `namespace` means the object lives in none.
    pub fn new(
        resource: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Key {
        Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object that lives in no namespace.
    pub fn cluster(resource: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key::new(resource, "", name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = if self.namespace.is_empty() { "-" } else { &self.namespace };
        write!(f, "/registry/{}/{namespace}/{}", self.resource, self.name)
    }
}

/// By resource, then as upstream's etcd keys sort: by the bytes of `namespace/name`, so that `team-a` comes before
/// `team`, because `-` sorts before `/`.
impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        compare_shared(&self.resource, &other.resource)
            .then_with(|| compare_namespaces(&self.namespace, &other.namespace))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Interned strings are mostly the same allocation, which spares the comparison.
fn compare_shared(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
}

fn compare_namespaces(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    if Arc::ptr_eq(a, b) || a == b {
        return Ordering::Equal;
    }
    let with_slash = |s: &Arc<str>| s.bytes().chain(Some(b'/')).collect::<Vec<_>>();
    let shared = a.len().min(b.len());
    match a.as_bytes()[..shared].cmp(&b.as_bytes()[..shared]) {
        Ordering::Equal => with_slash(a)[shared..].cmp(&with_slash(b)[shared..]),
        different => different,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_paths_do(a in "[a-c.-]{1,4}", b in "[a-c.-]{1,4}", x in "[a-b.-]{1,3}", y in "[a-b.-]{1,3}") {
            let (left, right) = (Key::new("pods", a, x), Key::new("pods", b, y));
            prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
        }
    }

    #[test]
    fn an_object_without_namespace_shows_a_dash() {
        assert_eq!(Key::cluster("nodes", "n1").to_string(), "/registry/nodes/-/n1");
    }
}
