//! What changed between two objects (upstream: TypedValue.Compare).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::element::PathElement;
use super::set::Set;
use super::typed::{Shape, TypeRef, Typed};
use crate::Value;
use crate::schema::{Object, Text};

/// No field is in more than one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

/// What happened to one field itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

impl Comparison {
    /// Leaves out these fields and all below them.
    pub fn without(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Comparison {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    fn push(&mut self, element: PathElement, change: Option<Change>, below: Comparison) {
        let Comparison { removed, modified, added } = below;
        if !removed.is_empty() || change == Some(Change::Removed) {
            self.removed.push(element.clone(), change == Some(Change::Removed), removed);
        }
        if !modified.is_empty() || change == Some(Change::Modified) {
            self.modified.push(element.clone(), change == Some(Change::Modified), modified);
        }
        if !added.is_empty() || change == Some(Change::Added) {
            self.added.push(element, change == Some(Change::Added), added);
        }
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn presence_change(old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
    match (old, new) {
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        _ => None,
    }
}

impl Typed<'_> {
    /// Compares two objects of this type.
    pub fn compare(&self, ty: TypeRef, old: &Value, new: &Value) -> Comparison {
        self.diff(ty, Some(old), Some(new)).1
    }

    fn diff(&self, ty: TypeRef, old: Option<&Value>, new: Option<&Value>) -> (Option<Change>, Comparison) {
        if old == new {
            return (None, Comparison::default());
        }
        let shape = self.shared_shape(ty, old, new);
        // Two empty ones are a leaf: this keeps empty and absent apart.
        if matches!(shape, Shape::Leaf) || (is_empty(old) && is_empty(new)) {
            return (presence_change(old, new).or(Some(Change::Modified)), Comparison::default());
        }
        let below = match shape {
            Shape::Struct(object) => self.diff_struct(shape, object, old, new),
            Shape::List { keys, item } => match self.diff_list(keys, item, old, new) {
                Some(below) => below,
                None => return (presence_change(old, new).or(Some(Change::Modified)), Comparison::default()),
            },
            _ => self.diff_keys(shape, old, new),
        };
        (presence_change(old, new), below)
    }

    /// A struct's fields; one that is never absent in Go counts as empty where its parent is there.
    fn diff_struct(
        &self,
        shape: Shape<'_>,
        object: &Object,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Comparison {
        let mut below = Comparison::default();
        let both = old.is_some() && new.is_some();
        for (key, a, b) in children(old, new) {
            let implied = || object.field(key).and_then(|field| self.implied(field));
            let a = a.or_else(|| old.and_then(|_| implied()));
            let b = b.or_else(|| new.and_then(|_| implied()));
            let (change, deeper) = self.diff(shape.child(key), a, b);
            below.push(PathElement::field(key), change, deeper);
        }
        if !both {
            let side = old.or(new);
            let absent = |name: &str| side.is_some_and(|value| value.get(name).is_none());
            for field in object.fields.iter().filter(|f| self.is_implied(f) && absent(&f.name)) {
                below.push(PathElement::field(&field.name), presence_change(old, new), Comparison::default());
            }
        }
        below
    }

    fn diff_keys(&self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
        let mut below = Comparison::default();
        for (key, a, b) in children(old, new) {
            let (change, deeper) = self.diff(shape.child(key), a, b);
            below.push(PathElement::field(key), change, deeper);
        }
        below
    }

    /// None when an item cannot be told apart from others.
    fn diff_list(
        &self,
        keys: &[Text],
        item: TypeRef,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<Comparison> {
        let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for value in old.and_then(Value::as_array).into_iter().flatten() {
            items.entry(self.item_element(keys, item, value)?).or_default().0.push(value);
        }
        for value in new.and_then(Value::as_array).into_iter().flatten() {
            items.entry(self.item_element(keys, item, value)?).or_default().1.push(value);
        }
        let mut below = Comparison::default();
        for (element, (old, new)) in items {
            let (change, deeper) = match (old.as_slice(), new.as_slice()) {
                ([_, _, ..], [_, _, ..]) => ((old != new).then_some(Change::Modified), Comparison::default()),
                // Duplicates are owned as a whole: the single item comes or goes with all its fields.
                ([_, _, ..], single) => {
                    let deeper = self.diff(item, None, single.first().copied()).1;
                    (Some(Change::Removed), deeper)
                }
                (single, [_, _, ..]) => {
                    let deeper = self.diff(item, single.first().copied(), None).1;
                    (Some(Change::Added), deeper)
                }
                (old, new) => self.diff(item, old.first().copied(), new.first().copied()),
            };
            below.push(element, change, deeper);
        }
        Some(below)
    }
}

/// What stands under each key of either object, in the order of the keys, in which maps keep them.
fn children<'v>(
    old: Option<&'v Value>,
    new: Option<&'v Value>,
) -> impl Iterator<Item = (&'v str, Option<&'v Value>, Option<&'v Value>)> {
    let of = |value: Option<&'v Value>| value.and_then(Value::as_object).into_iter().flatten().peekable();
    let (mut old, mut new) = (of(old), of(new));
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = if order.is_le() { old.next() } else { None };
        let b = if order.is_ge() { new.next() } else { None };
        let (key, _) = a.or(b)?;
        Some((key.as_str(), a.map(|(_, value)| value), b.map(|(_, value)| value)))
    })
}
