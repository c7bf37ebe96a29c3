//! Strategic merge patch: a merge patch that knows from the schema which lists merge by a key, with directives inside
//! the patch (follows `k8s.io/apimachinery/pkg/util/strategicpatch`).

mod list;

use super::shown::{GO_LIST, go_text, go_type, go_value};
use crate::schema::{Field, Schema, TypeId, TypeKind};
use crate::status::Status;
use crate::{Map, Text, Value};

/// `replace` or `delete` for the object it stands in; in a list item also what becomes of the item.
const DIRECTIVE: &str = "$patch";
/// Keys to keep; all others of the object go.
const RETAIN_KEYS: &str = "$retainKeys";
/// Prefix of a list's name: the order of its items.
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
/// Prefix of a list's name: scalars to take out of it.
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map;

/// Why a patch does not apply; the wording is upstream's.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Error {
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("unknown patch type: {} in map: {}", go_text(.0.get(DIRECTIVE)), go_value(.0))]
    PatchType(Value),
    #[error("map: {} does not contain declared merge key: {key}", go_value(.map))]
    NoMergeKey { map: Value, key: String },
    #[error("list element types are not identical: {}", go_value(.0))]
    MixedLists(Value),
    #[error("cannot merge lists without merge key for {0}")]
    NoDeclaredMergeKey(String),
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    #[error("expected a {expected}, but received a {found}")]
    Kind { expected: &'static str, found: &'static str },
    #[error(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        go_value(.patch),
        go_value(.order)
    )]
    Order { patch: Value, order: Value },
    #[error("unable to find api field in struct {ty} for the json field {field:?}")]
    NoField { ty: String, field: String },
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Error::RetainKeys => Status::bad_request(self.to_string()),
            Error::ListOfLists => Status::failure(422, "Invalid", self.to_string()),
            _ => Status::failure(500, "", self.to_string()),
        }
    }
}

/// Applies the patch to an object of this type.
pub fn strategic_merge_patch(
    schema: &Schema,
    root: TypeId,
    document: Value,
    patch: Value,
) -> Result<Value, Status> {
    let (Value::Object(document), Value::Object(patch)) = (document, patch) else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    let merge = Merge { schema };
    merge.objects(document, patch, Some(root)).map(Value::Object).map_err(|error| error.status())
}

/// Merges along a schema. A type of `None` is not in the schema: objects merge, lists are replaced.
#[derive(Clone, Copy)]
struct Merge<'s> {
    schema: &'s Schema,
}

fn list(value: Value, otherwise: Error) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(otherwise),
    }
}

fn as_list(value: Value) -> Result<Vec<Value>, Error> {
    let found = go_type(&value);
    list(value, Error::Kind { expected: GO_LIST, found })
}

impl<'s> Merge<'s> {
    fn field(&self, ty: Option<TypeId>, key: &str) -> Option<&'s Field> {
        self.schema.field(ty?, key)
    }

    fn child(&self, ty: Option<TypeId>, key: &str) -> Option<TypeId> {
        self.schema.child(ty?, key)
    }

    /// The type of a list's items.
    fn item(&self, ty: Option<TypeId>) -> Option<TypeId> {
        match &self.schema.get(ty?).kind {
            TypeKind::List(list) => Some(list.item),
            _ => None,
        }
    }

    fn objects(&self, mut original: Object, mut patch: Object, ty: Option<TypeId>) -> Result<Object, Error> {
        if let Some(directive) = patch.get(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(DIRECTIVE);
                    Ok(patch)
                }
                Some("delete") => Ok(Object::new()),
                _ => Err(Error::PatchType(Value::Object(patch))),
            };
        }
        if let Some(keys) = patch.remove(RETAIN_KEYS) {
            retain_keys(&mut original, &patch, keys)?;
        }
        let orders: Vec<Text> =
            patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
        for key in orders {
            let order = patch.remove(&key).unwrap_or_default();
            self.ordered_list(&mut original, &mut patch, &key[SET_ELEMENT_ORDER.len()..], order, ty)?;
        }
        for (key, value) in patch {
            match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
                Some(key) => delete_scalars(&mut original, key, &value),
                None => self.entry(&mut original, key, value, ty)?,
            }
        }
        Ok(original)
    }

    /// Merges one key of a patch into the original.
    fn entry(&self, original: &mut Object, key: Text, value: Value, ty: Option<TypeId>) -> Result<(), Error> {
        if value.is_null() {
            original.remove(&key);
            return Ok(());
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                Some(Value::Object(self.objects(old, new, self.child(ty, &key))?))
            }
            (Some(Value::Array(old)), Value::Array(new)) => Some(Value::Array(self.lists(
                old,
                new,
                self.field(ty, &key),
                self.item(self.child(ty, &key)),
            )?)),
            (_, value) => clean(value),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
        Ok(())
    }

    /// Merges a list for which the patch gives the order of items, and puts them into that order.
    fn ordered_list(
        &self,
        original: &mut Object,
        patch: &mut Object,
        key: &str,
        order: Value,
        ty: Option<TypeId>,
    ) -> Result<(), Error> {
        let order = as_list(order)?;
        let field = self.field(ty, key).ok_or_else(|| Error::NoField {
            ty: ty.map(|id| self.schema.get(id).short_name().to_owned()).unwrap_or_default(),
            field: key.to_owned(),
        })?;
        let merge_key = field.patch_merge_key.as_deref();
        let old = original.remove(key).map(as_list).transpose()?;
        let new = patch.remove(key).map(as_list).transpose()?;
        if let Some(new) = &new {
            list::check_order(new, &order, merge_key)?;
        }
        let (merged, server_order) = match (old, new) {
            (None, None) => return Ok(()),
            (Some(old), None) => (old.clone(), old),
            (None, Some(new)) => (new.into_iter().filter_map(clean).collect(), Vec::new()),
            (Some(old), Some(new)) => {
                (self.lists(old.clone(), new, Some(field), self.item(Some(field.ty)))?, old)
            }
        };
        let merged = list::arrange(merged, &order, &server_order, merge_key)?;
        original.insert(key, Value::Array(merged));
        Ok(())
    }

    fn lists(
        &self,
        old: Vec<Value>,
        new: Vec<Value>,
        field: Option<&Field>,
        item: Option<TypeId>,
    ) -> Result<Vec<Value>, Error> {
        let Some(field) = field.filter(|field| field.patch_merge) else {
            return Ok(new.into_iter().filter_map(clean).collect());
        };
        if old.is_empty() && new.is_empty() {
            return Ok(old);
        }
        if list::holds_objects(&old, &new)? {
            let key = field.patch_merge_key.as_deref();
            let key = key.ok_or_else(|| Error::NoDeclaredMergeKey(field.name.to_string()))?;
            self.keyed_lists(old, new, key, item)
        } else {
            list::merge_scalars(old, new)
        }
    }

    /// Merges lists of objects that are told apart by a key; an item may carry a directive.
    fn keyed_lists(
        &self,
        mut old: Vec<Value>,
        new: Vec<Value>,
        key: &str,
        item: Option<TypeId>,
    ) -> Result<Vec<Value>, Error> {
        let mut plain = Vec::new();
        let mut replace = false;
        for value in new {
            match value.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
                None => plain.push(value),
                Some("delete") => {
                    let wanted = list::key_of(&value, key)?.clone();
                    old.retain(|item| item.get(key) != Some(&wanted));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(Error::MergeDirective),
                Some(_) => return Err(Error::PatchType(value)),
            }
        }
        if replace {
            return Ok(plain.into_iter().filter_map(clean).collect());
        }
        let order = plain.clone();
        let server_order = old.clone();
        let mut merged = old;
        for value in plain {
            let wanted = list::key_of(&value, key)?;
            let found = merged.iter_mut().find(|item| item.get(key) == Some(wanted));
            match (found, value) {
                (Some(place), Value::Object(value)) => {
                    let Value::Object(old) = place.take() else { unreachable!("it has a key") };
                    *place = Value::Object(self.objects(old, value, item)?);
                }
                (_, value) => merged.extend(clean(value)),
            }
        }
        list::arrange(merged, &order, &server_order, Some(key))
    }
}

/// Drops all keys that the directive does not name. The patch may only speak of keys that it does.
fn retain_keys(original: &mut Object, patch: &Object, keys: Value) -> Result<(), Error> {
    let keys = list(keys, Error::RetainKeys)?;
    let named = |key: &str| keys.iter().any(|named| named.as_str() == Some(key));
    let is_directive =
        |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !named(key)) {
        return Err(Error::RetainKeys);
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// Takes scalars out of a list; what is no list on either side stays as it is, and null removes the list.
fn delete_scalars(original: &mut Object, key: &str, scalars: &Value) {
    match (original.get_mut(key), scalars) {
        (Some(Value::Array(items)), Value::Array(scalars)) => items.retain(|item| !scalars.contains(item)),
        (Some(_), Value::Null) => drop(original.remove(key)),
        _ => {}
    }
}

/// A patch's value as it stands where nothing was before: without nulls, and without parts that carry directives.
fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let is_directive = |key: &str| {
                key == RETAIN_KEYS
                    || key.starts_with(SET_ELEMENT_ORDER)
                    || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            };
            let kept = fields.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, clean(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(clean).collect())),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
