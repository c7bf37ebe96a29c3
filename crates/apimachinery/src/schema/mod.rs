//! The schema engine's table: for every type its fields, and for every field what decoding, defaulting, merging and
//! describing need to know. Built-in kinds load from a table made at build time; a CustomResourceDefinition's
//! structural schema compiles into the same representation.
//!
//! Nothing here knows a particular kind or reads an object.

mod default;
mod slot;
mod types;

pub use slot::{Head, Slot};
pub use types::{
    Embedded, Field, List, ListType, Literal, Map, MapType, Object, Presence, Scalar, Text, Type, TypeId,
    TypeKind, Union,
};

use std::ops::Index;
use std::sync::OnceLock;

use crate::gvk::GroupVersionKind;

/// A closed set of types that refer to each other by `TypeId`.
#[derive(Debug, Default)]
pub struct Schema {
    types: Box<[Type]>,
    /// For each type what is most asked of its fields, in their order; made when it is first asked for.
    slots: OnceLock<Box<[Box<[Slot]>]>>,
    /// The named types, in the order of their names.
    by_name: Box<[TypeId]>,
    /// The types of kinds, each with the place of one of its kinds, in the order of those.
    by_gvk: Box<[(TypeId, usize)]>,
}

impl Schema {
    /// Sorts fields and indexes names; every `TypeId` within `types` must be an index into it.
    pub fn new(mut types: Vec<Type>) -> Self {
        let count = types.len();
        for ty in &mut types {
            if let TypeKind::Object(object) = &mut ty.kind {
                object.fields.sort_by(|a, b| a.name.cmp(&b.name));
                assert!(object.fields.iter().all(|f| f.ty.index() < count), "field types are in the table");
            }
        }
        let mut by_name: Vec<TypeId> =
            (0..count).filter(|&i| !types[i].name.is_empty()).map(|i| TypeId(i as u32)).collect();
        by_name.sort_by(|a, b| types[a.index()].name.cmp(&types[b.index()].name));
        let kinds = |id: &TypeId| types[id.index()].object().map_or(0, |o| o.gvk.len());
        let mut by_gvk: Vec<_> = by_name.iter().flat_map(|id| (0..kinds(id)).map(|at| (*id, at))).collect();
        by_gvk.sort_by(|a, b| gvk_at(&types, *a).cmp(&gvk_at(&types, *b)));
        Schema { types: types.into(), slots: OnceLock::new(), by_name: by_name.into(), by_gvk: by_gvk.into() }
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.index()]
    }

    /// The type of an OpenAPI definition name such as `io.k8s.api.core.v1.Pod`.
    pub fn lookup(&self, name: &str) -> Option<TypeId> {
        let at = self.by_name.binary_search_by(|id| self.get(*id).name.as_ref().cmp(name)).ok()?;
        Some(self.by_name[at])
    }

    /// The type that carries this group, version and kind.
    pub fn lookup_gvk(&self, gvk: &GroupVersionKind) -> Option<TypeId> {
        let found = self.by_gvk.binary_search_by(|entry| gvk_at(&self.types, *entry).cmp(&Some(gvk)));
        found.ok().map(|at| self.by_gvk[at].0)
    }

    /// All named types in the order of their names.
    pub fn named(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.by_name.iter().map(|id| (*id, self.get(*id)))
    }

    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The field `name` of the object type `id`; none when the type is no object or has no such field.
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        self.get(id).object()?.field(name)
    }

    /// The place of the field `name`, and what it holds, for who reads names in about their order: `next` is where it most
    /// likely is, or soon after.
    pub fn slot(&self, id: TypeId, name: &[u8], head: Head, next: usize) -> Option<(usize, Slot)> {
        let slots = &self.slots.get_or_init(|| self.types.iter().map(slots_of).collect())[id.index()];
        let full = |at: usize| Some(self.get(id).object()?.fields.get(at)?.name.as_bytes());
        let at = slot::place(slots, name, head, next, full)?;
        Some((at, slots[at]))
    }

    /// The type under `key` of a value of type `id`, be it an object or a map.
    pub fn child(&self, id: TypeId, key: &str) -> Option<TypeId> {
        match &self.get(id).kind {
            TypeKind::Object(object) => object.field(key).map(|f| f.ty),
            TypeKind::Map(map) => Some(map.value),
            _ => None,
        }
    }

    /// Whether the object or map in `field` is owned as a whole; the field's own word overrides its type's.
    pub fn map_type(&self, field: &Field) -> MapType {
        field.map_type.unwrap_or_else(|| match &self.get(field.ty).kind {
            TypeKind::Object(object) => object.map_type,
            TypeKind::Map(map) => map.map_type,
            TypeKind::Any => MapType::Atomic,
            _ => MapType::Granular,
        })
    }
}

fn slots_of(ty: &Type) -> Box<[Slot]> {
    ty.object().map_or(&[][..], |object| &object.fields).iter().map(Slot::of).collect()
}

fn gvk_at(types: &[Type], (id, at): (TypeId, usize)) -> Option<&GroupVersionKind> {
    types[id.index()].object()?.gvk.get(at)
}

impl Index<TypeId> for Schema {
    type Output = Type;

    fn index(&self, id: TypeId) -> &Type {
        self.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, ty: u32) -> Field {
        Field { name: name.into(), ty: TypeId(ty), ..Field::default() }
    }

    #[test]
    fn types_are_found_by_name_and_fields_by_key() {
        let string = Type { kind: TypeKind::Scalar(Scalar::String), ..Type::default() };
        let labels =
            Type { kind: TypeKind::Map(Map { value: TypeId(0), ..Map::default() }), ..Type::default() };
        let object = Object { fields: vec![field("name", 0), field("labels", 1)], ..Object::default() };
        let meta = Type { name: "Meta".into(), kind: TypeKind::Object(object), ..Type::default() };
        let schema = Schema::new(vec![string, labels, meta]);
        let root = schema.lookup("Meta").expect("is named");
        let labels = schema.child(root, "labels").expect("is a field");
        assert_eq!(schema.child(labels, "anything"), Some(TypeId(0)));
        assert_eq!(schema.field(root, "name").expect("is a field").ty, TypeId(0));
        assert!(schema.field(root, "nothing").is_none());
        assert!(schema.lookup("Nothing").is_none());
    }

    #[test]
    fn fields_are_found_wherever_they_are_looked_for_first() {
        let names = ["host", "hostname", "hostnameOverride", "hosts", "podIP", "podIPs", "podIPx"];
        let long =
            ["terminationGracePeriodSeconds", "terminationGreatPeriodSeconds", "terminationMessagePath"];
        let names = [&names[..], &long].concat();
        let fields = names.iter().map(|name| field(name, 0)).collect();
        let kind = TypeKind::Object(Object { fields, ..Object::default() });
        let schema = Schema::new(vec![Type { kind, ..Type::default() }]);
        let place = |name: &str, next: usize| {
            let name = name.as_bytes();
            schema.slot(TypeId(0), name, Head::of(name), next).map(|(at, _)| at)
        };
        for next in 0..=names.len() {
            for (at, name) in names.iter().enumerate() {
                assert_eq!(place(name, next), Some(at), "{name} from {next}");
            }
            for name in
                ["", "a", "hos", "hostnam", "hostnameO", "podI", "podIPsx", "terminationPeriodSeconds", "z"]
            {
                assert_eq!(place(name, next), None, "{name} from {next}");
            }
        }
    }
}
