//! Lists in a strategic merge patch: telling items apart, merging scalars, and the order of the result.

use std::collections::VecDeque;

use super::super::shown::{GO_MAP, go_type};
use super::{DIRECTIVE, Error};
use crate::Value;

/// The value of an item's merge key.
pub(super) fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, Error> {
    let Value::Object(fields) = item else {
        return Err(Error::Kind { expected: GO_MAP, found: go_type(item) });
    };
    fields.get(key).ok_or_else(|| Error::NoMergeKey { map: item.clone(), key: key.to_owned() })
}

/// What identifies an item: its merge key, or itself.
fn identity<'v>(item: &'v Value, key: Option<&str>) -> Result<&'v Value, Error> {
    key.map_or(Ok(item), |key| key_of(item, key))
}

/// Whether the items are objects. All must be of one kind, and none a list.
pub(super) fn holds_objects(old: &[Value], new: &[Value]) -> Result<bool, Error> {
    let kind = std::mem::discriminant::<Value>;
    let mut items = old.iter().chain(new);
    let Some(first) = items.next() else { return Ok(false) };
    if first.is_array() {
        return Err(Error::ListOfLists);
    }
    if items.any(|item| kind(item) != kind(first)) {
        return Err(Error::MixedLists(Value::Array(vec![old.to_vec().into(), new.to_vec().into()])));
    }
    Ok(first.is_object())
}

/// Both lists' items, each once.
pub(super) fn merge_scalars(old: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>, Error> {
    let (server_order, order) = (old.clone(), new.clone());
    let mut merged: Vec<Value> = Vec::new();
    for item in old.into_iter().chain(new) {
        if !merged.contains(&item) {
            merged.push(item);
        }
    }
    arrange(merged, &order, &server_order, None)
}

/// Whether the items of a patch come in the order that it gives for the list; deletions may stand anywhere.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Error> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(item, key)?;
        let found = places.by_ref().any(|place| identity(place, key).is_ok_and(|found| found == wanted));
        if !found {
            return Err(Error::Order { patch: patch.to_vec().into(), order: order.to_vec().into() });
        }
    }
    Ok(())
}

/// Puts items that the order names into that order, and others among them as they stood on the server
/// (upstream: normalizeElementOrder).
pub(super) fn arrange(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Error> {
    for item in &items {
        identity(item, key)?;
    }
    let place_in = |list: &[Value], item: &Value| {
        let wanted = identity(item, key).ok()?;
        list.iter().position(|other| identity(other, key).is_ok_and(|found| found == wanted))
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place_in(order, item).is_some());
    named.sort_by_key(|item| place_in(order, item));
    others.sort_by_key(|item| place_in(server_order, item).unwrap_or(usize::MAX));
    let (mut named, mut others) = (VecDeque::from(named), VecDeque::from(others));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    while let (Some(next_named), Some(next_other)) = (named.front(), others.front()) {
        let places = (place_in(server_order, next_other), place_in(server_order, next_named));
        let other_first = matches!(places, (Some(other), Some(named)) if other < named);
        let from = if other_first { &mut others } else { &mut named };
        arranged.extend(from.pop_front());
    }
    arranged.extend(named);
    arranged.extend(others);
    Ok(arranged)
}
