//! A set of fields as a tree. A field can be a member, or only lead to members below it, or both.

use std::cmp::Ordering;

use super::element::{Path, PathElement};
use crate::{Map, Value};

/// Nodes in the order of their elements, each element once. No node is empty: `member || !children.is_empty()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub element: PathElement,
    /// The field itself belongs to the set.
    pub member: bool,
    pub children: Set,
}

impl Set {
    pub fn from_paths(paths: &[&[&str]]) -> Self {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(&Path::fields(path)));
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn get(&self, element: &PathElement) -> Option<&Node> {
        self.position(element).ok().map(|at| &self.nodes[at])
    }

    fn position(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.element.cmp(element))
    }

    pub fn has(&self, path: &Path) -> bool {
        let Some((last, parents)) = path.0.split_last() else { return false };
        let parent =
            parents.iter().try_fold(self, |set, element| set.get(element).map(|node| &node.children));
        parent.and_then(|set| set.get(last)).is_some_and(|node| node.member)
    }

    /// Adds a field; its parents do not become members. Nobody owns the empty path.
    pub fn insert(&mut self, path: &Path) {
        if let Some((first, rest)) = path.0.split_first() {
            self.insert_steps(first, rest);
        }
    }

    fn insert_steps(&mut self, first: &PathElement, rest: &[PathElement]) {
        let at = self.position(first).unwrap_or_else(|at| {
            let node = Node { element: first.clone(), member: false, children: Set::default() };
            self.nodes.insert(at, node);
            at
        });
        match rest.split_first() {
            None => self.nodes[at].member = true,
            Some((next, rest)) => self.nodes[at].children.insert_steps(next, rest),
        }
    }

    /// Adds a whole node that is not there yet; cheap when it comes last. An empty one is dropped.
    pub(super) fn push(&mut self, element: PathElement, member: bool, children: Set) {
        if !member && children.is_empty() {
            return;
        }
        let comes_last = self.nodes.last().is_none_or(|last| last.element < element);
        let at = if comes_last { Err(self.nodes.len()) } else { self.position(&element) };
        match at {
            Err(at) => self.nodes.insert(at, Node { element, member, children }),
            Ok(at) => {
                let node = &mut self.nodes[at];
                node.member |= member;
                node.children = std::mem::take(&mut node.children).union(children);
            }
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        for Node { element, member, children } in other.nodes {
            self.push(element, member, children);
        }
        self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for node in &self.nodes {
            if let Some(theirs) = other.get(&node.element) {
                let children = node.children.intersection(&theirs.children);
                out.push(node.element.clone(), node.member && theirs.member, children);
            }
        }
        out
    }

    /// What is in this one only. Fields below a member of the other stay.
    #[must_use]
    pub fn difference(self, other: &Set) -> Set {
        self.without(other, &|_| false)
    }

    /// What is in this one only. Fields below a member of the other go with it.
    #[must_use]
    pub fn recursive_difference(self, other: &Set) -> Set {
        self.without(other, &|theirs| theirs.member)
    }

    /// What is in this one only; what stands at nodes of the other that `whole` says yes to goes with all below it.
    fn without(mut self, other: &Set, whole: &dyn Fn(&Node) -> bool) -> Set {
        if other.is_empty() {
            return self;
        }
        self.nodes.retain_mut(|node| {
            let Some(theirs) = other.get(&node.element) else { return true };
            if whole(theirs) {
                return false;
            }
            node.member &= !theirs.member;
            node.children = std::mem::take(&mut node.children).without(&theirs.children, whole);
            node.member || !node.children.is_empty()
        });
        self
    }

    /// Whether the two have a member in common.
    pub fn intersects(&self, other: &Set) -> bool {
        let (mut l, mut r) = (0, 0);
        while let (Some(a), Some(b)) = (self.nodes.get(l), other.nodes.get(r)) {
            match a.element.cmp(&b.element) {
                Ordering::Less => l += 1,
                Ordering::Greater => r += 1,
                Ordering::Equal => {
                    if (a.member && b.member) || a.children.intersects(&b.children) {
                        return true;
                    }
                    l += 1;
                    r += 1;
                }
            }
        }
        false
    }

    /// All members. The members of a level come before those below it, as upstream walks a set.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Path::default(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            prefix.0.push(node.element.clone());
            paths.push(prefix.clone());
            prefix.0.pop();
        }
        for node in &self.nodes {
            prefix.0.push(node.element.clone());
            node.children.collect_paths(prefix, paths);
            prefix.0.pop();
        }
    }

    /// The set as a `FieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.nodes.iter().map(|node| (node.element.to_key(), node.to_fields_v1())).collect())
    }

    /// Reads a `FieldsV1`; elements of unknown kinds are skipped.
    pub fn from_fields_v1(value: &Value) -> Result<Set, String> {
        let mut set = Set::default();
        let Value::Object(fields) = value else {
            return Err("fieldsV1 is not an object".to_owned());
        };
        for (key, below) in fields {
            if key == "." {
                continue;
            }
            if let Some(element) = PathElement::from_key(key)? {
                let children = Set::from_fields_v1(below)?;
                let member = children.is_empty() || below.get(".").is_some();
                set.push(element, member, children);
            }
        }
        Ok(set)
    }
}

impl Node {
    fn to_fields_v1(&self) -> Value {
        let mut fields = self.children.to_fields_v1();
        if self.member
            && !self.children.is_empty()
            && let Value::Object(fields) = &mut fields
        {
            fields.insert(".", Value::Object(Map::new()));
        }
        fields
    }
}
