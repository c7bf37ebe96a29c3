//! Fills in the defaults a schema states for absent fields.

use crate::Value;

use super::{Object, Presence, Schema, TypeId, TypeKind};
use crate::codec::scalar;

impl Schema {
    /// Sets every absent field that has a default, in `value` and in whatever it holds. What is absent altogether
    /// stays absent: only objects that exist get their fields.
    pub fn default(&self, root: TypeId, value: &mut Value) {
        match (&self[root].kind, value) {
            (TypeKind::Object(object), Value::Object(map)) => self.default_object(object, map),
            (TypeKind::Map(kind), Value::Object(map)) => {
                map.values_mut().for_each(|value| self.default(kind.value, value));
            }
            (TypeKind::List(list), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.default(list.item, item));
            }
            (TypeKind::Union(union), value @ Value::Object(_)) => self.default(union.object, value),
            (TypeKind::Union(union), value @ Value::Array(_)) => self.default(union.other, value),
            _ => {}
        }
    }

    fn default_object(&self, object: &Object, map: &mut crate::Map) {
        for field in &object.fields {
            let Some(default) = &field.default else { continue };
            let default = default.to_value();
            // What is left out when empty need not be made so.
            let writes_nothing =
                field.presence == Presence::OmitEmpty && scalar::is_empty(&default, &self[field.ty].kind);
            if !writes_nothing && map.get(field.name.as_ref()).is_none_or(Value::is_null) {
                map.insert(&*field.name, default);
            }
        }
        for (key, value) in map {
            if let Some(field) = object.field(key) {
                self.default(field.ty, value);
            }
        }
    }
}
