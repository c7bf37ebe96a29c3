//! What Go writes of a value that nobody has set anything of: the fields without `omitempty`, down to any depth.

use crate::{Map, Value};

use super::scalar;
use crate::schema::{Object, Presence, Scalar, Schema, TypeId, TypeKind};

impl Schema {
    /// An object of this type without anything set. It says neither `kind` nor `apiVersion`.
    pub fn empty(&self, root: TypeId) -> Value {
        match &self[root].kind {
            TypeKind::Object(object) => Value::Object(self.always_written(object)),
            // These are nil as long as nobody makes them.
            TypeKind::List(_) | TypeKind::Map(_) | TypeKind::Scalar(Scalar::Bytes) => Value::Null,
            _ => scalar::zero(self, root),
        }
    }

    fn always_written(&self, object: &Object) -> Map {
        let always = object.fields.iter().filter(|field| field.presence == Presence::Always);
        always.map(|field| (field.name.clone().into_owned(), self.empty(field.ty))).collect()
    }
}
