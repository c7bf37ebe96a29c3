//! Lays an applied configuration over a live object (upstream: TypedValue.Merge).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::element::PathElement;
use super::typed::{Shape, TypeRef, Typed};
use crate::schema::Text;
use crate::{Map, Value};

impl Typed<'_> {
    /// The live value with everything that the configuration says; what it does not mention stays.
    pub fn merge(&self, ty: TypeRef, live: &Value, config: &Value) -> Value {
        let shape = self.shared_shape(ty, Some(live), Some(config));
        match (shape, live, config) {
            (Shape::Struct(_) | Shape::Map(_), Value::Object(live), Value::Object(config))
                if !(live.is_empty() && config.is_empty()) =>
            {
                let mut merged: Map = live.clone();
                for (key, value) in config {
                    let value = match live.get(key) {
                        Some(live) => self.merge(shape.child(key), live, value),
                        None => value.clone(),
                    };
                    merged.insert(key.clone(), value);
                }
                Value::Object(merged)
            }
            (Shape::List { keys, item }, Value::Array(live_items), Value::Array(config_items))
                if !(live_items.is_empty() && config_items.is_empty()) =>
            {
                self.merge_lists(keys, item, live_items, config_items).unwrap_or_else(|| config.clone())
            }
            // A granular part that the configuration sets to null keeps what others put there.
            (Shape::Struct(_) | Shape::Map(_) | Shape::List { .. }, live, Value::Null)
                if !live.is_null() && !is_empty(live) =>
            {
                live.clone()
            }
            _ => config.clone(),
        }
    }

    /// Items of both lists. Those in the configuration come in its order; those only live stay near their neighbours.
    /// None when an item cannot be told apart from others.
    fn merge_lists(&self, keys: &[Text], item: TypeRef, live: &[Value], config: &[Value]) -> Option<Value> {
        let index = |items: &[Value]| -> Option<Vec<PathElement>> {
            items.iter().map(|value| self.item_element(keys, item, value)).collect()
        };
        let (live_elements, config_elements) = (index(live)?, index(config)?);
        let config_set: BTreeSet<&PathElement> = config_elements.iter().collect();
        let mut by_element: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
        for (element, value) in live_elements.iter().zip(live) {
            // Duplicates are not merged into: nobody could say which.
            by_element.entry(element).and_modify(|known| *known = None).or_insert(Some(value));
        }
        let mut shared: VecDeque<&PathElement> =
            config_elements.iter().filter(|element| by_element.contains_key(element)).collect();
        let mut done: BTreeSet<&PathElement> = BTreeSet::new();
        let mut merged = Vec::with_capacity(live.len().max(config.len()));
        let (mut l, mut c) = (0, 0);
        while l < live.len() || c < config.len() {
            if let Some(element) = live_elements.get(l) {
                if !config_set.contains(element) {
                    merged.push(live[l].clone());
                    l += 1;
                    continue;
                }
                // A shared item whose turn has not come, or is over, is passed by: the configuration places it.
                let is_next = shared.front() == Some(&element);
                if done.contains(element) || (c < config.len() && !is_next) {
                    l += 1;
                    continue;
                }
            }
            let Some(element) = config_elements.get(c) else { break };
            done.insert(element);
            let with_live = by_element.get(element).copied().flatten();
            merged.push(match with_live {
                Some(live) => self.merge(item, live, &config[c]),
                None => config[c].clone(),
            });
            if shared.front() == Some(&element) {
                shared.pop_front();
            }
            if live_elements.get(l) == Some(element) {
                l += 1;
            }
            c += 1;
        }
        Some(Value::Array(merged))
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
