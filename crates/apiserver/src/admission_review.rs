//! A request as it is put to those who are asked about it, and its objects between the version in which they are
//! judged and the one in which somebody wants to see them.

use admission::Notes;
use admission::rules::Attributes;
use api::catalogue;
use apimachinery::codec::Strictness;
use apimachinery::gvk::GroupVersionKind;
use apimachinery::{Status, Value};

use crate::conversion;
use crate::core::Core;
use crate::customresource;
use crate::kind::KindRef;
use crate::resource::defaulted;
use crate::subresource::scale;
use crate::wire::{self, Expected};
use crate::write::Place;

pub struct Review<'a> {
    pub core: &'a Core,
    pub place: &'a Place,
    pub attributes: Attributes,
    /// The stored object, as the request's kind is judged.
    pub old: Option<&'a Value>,
    pub notes: &'a Notes,
}

impl Review<'_> {
    /// An object of the request, as this kind shows it.
    pub fn shown(&self, kind: &GroupVersionKind, object: &Value) -> Result<Value, Status> {
        if object.is_null() {
            return Ok(Value::Null);
        }
        if self.is_scale() {
            let object = conversion::from_stored(&self.place.kind, object.clone());
            return Ok(scale::scale(&self.place.kind, &object));
        }
        if self.is_posted() {
            return Ok(object.clone());
        }
        match &self.place.kind {
            KindRef::Custom(_) => Ok(with_version(object.clone(), kind)),
            KindRef::BuiltIn(_) => Ok(conversion::from_stored(self.row(kind)?, object.clone())),
        }
    }

    /// The object that somebody has changed in this kind, brought into form, as it is judged. `current` is what it was.
    pub fn taken(&self, kind: &GroupVersionKind, changed: Value, current: &Value) -> Result<Value, Status> {
        let api_version = kind.group_version().to_string();
        if self.is_scale() {
            let shown = conversion::from_stored(&self.place.kind, current.clone());
            let next = scale::scaled(&self.place.kind, &shown, &changed)?;
            return Ok(conversion::to_stored(&self.place.kind, next));
        }
        if self.is_posted() {
            let type_name = self.type_name(kind)?;
            let expected = Expected { type_name, api_version: &api_version, kind: &kind.kind };
            return wire::decode_value(expected, changed, Strictness::Ignore, &mut Vec::new());
        }
        if let Some(custom) = self.place.kind.custom() {
            let changed = with_version(changed, &self.attributes.kind);
            let changed = customresource::settled(custom, changed, Strictness::Ignore, &mut Vec::new())?;
            return Ok(customresource::defaulted(custom, changed));
        }
        let row = self.row(kind)?;
        let expected = Expected { type_name: row.type_name, api_version: &api_version, kind: &kind.kind };
        let changed = wire::decode_value(expected, changed, Strictness::Ignore, &mut Vec::new())?;
        Ok(defaulted(&KindRef::BuiltIn(row), changed))
    }

    /// The type in the schema of objects that this kind shows.
    pub fn type_name(&self, kind: &GroupVersionKind) -> Result<&str, Status> {
        if self.is_scale() || self.is_posted() {
            let part = self.place.kind.subresource(&self.attributes.subresource);
            return Ok(part.map_or(self.place.kind.type_name, |part| part.type_name));
        }
        match &self.place.kind {
            KindRef::Custom(custom) => Ok(custom.kind.type_name),
            KindRef::BuiltIn(_) => Ok(self.row(kind)?.type_name),
        }
    }

    fn row(&self, kind: &GroupVersionKind) -> Result<&'static catalogue::Kind, Status> {
        catalogue::by_kind(&kind.group, &kind.version, &kind.kind)
            .ok_or_else(|| Status::internal(format!("unable to convert to {kind}: unknown kind")))
    }

    fn is_scale(&self) -> bool {
        self.attributes.subresource == "scale"
    }

    /// Whether the object is not the stored one but what was posted to a subresource, such as a Binding.
    fn is_posted(&self) -> bool {
        self.attributes.kind.kind != self.place.kind.resource.kind
    }
}

/// A custom object in another version whose conversion changes nothing else.
pub fn with_version(mut object: Value, kind: &GroupVersionKind) -> Value {
    object["apiVersion"] = kind.group_version().to_string().into();
    object
}
