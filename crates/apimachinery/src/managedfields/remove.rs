//! Takes fields out of an object (upstream: TypedValue.RemoveItems), and the closure over named fields that pruning
//! needs.

use super::element::PathElement;
use super::set::Set;
use super::typed::{Shape, TypeRef, Typed};
use crate::Value;
use crate::schema::TypeKind;

impl Typed<'_> {
    /// The value without the members of the set. What becomes empty stays as an empty object or list.
    pub fn remove(&self, ty: TypeRef, mut value: Value, set: &Set) -> Value {
        if set.is_empty() {
            return value;
        }
        let shape = self.shape(ty, &value);
        match (shape, &mut value) {
            (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
                for node in set.nodes() {
                    let PathElement::Field(name) = &node.element else { continue };
                    if node.member {
                        fields.remove(name);
                    } else if let Some(field) = fields.get_mut(name) {
                        *field = self.remove(shape.child(name), field.take(), &node.children);
                    }
                }
            }
            (Shape::List { keys, item }, Value::Array(items)) => {
                let kept = items.drain(..).filter_map(|value| {
                    let element = self.item_element(keys, item, &value);
                    match element.and_then(|element| set.get(&element)) {
                        Some(node) if node.member => None,
                        Some(node) => Some(self.remove(item, value, &node.children)),
                        None => Some(value),
                    }
                });
                *items = kept.collect::<Vec<_>>();
            }
            _ => {}
        }
        value
    }

    /// The set, in which every declared field that leads to a member is a member too.
    pub fn with_named_fields(&self, ty: TypeRef, set: &Set) -> Set {
        let mut out = Set::default();
        for node in set.nodes() {
            let (child, named) = self.step(ty, &node.element);
            let member = node.member || (named && !node.children.is_empty());
            out.push(node.element.clone(), member, self.with_named_fields(child, &node.children));
        }
        out
    }

    /// The type behind an element, and whether the element is a declared field.
    fn step(&self, ty: TypeRef, element: &PathElement) -> (TypeRef, bool) {
        let TypeRef::Known { id, .. } = ty else { return (TypeRef::Deduced, false) };
        let known = |id, map_type| TypeRef::Known { id, map_type };
        match (&self.schema.get(id).kind, element) {
            (TypeKind::Object(object), PathElement::Field(name)) => match object.field(name) {
                Some(field) => (known(field.ty, field.map_type), true),
                None => (TypeRef::Deduced, false),
            },
            (TypeKind::Map(map), PathElement::Field(_)) => (known(map.value, None), false),
            (TypeKind::List(list), _) => (known(list.item, None), false),
            _ => (TypeRef::Deduced, false),
        }
    }
}
