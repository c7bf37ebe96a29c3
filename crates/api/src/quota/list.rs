//! Arithmetic on lists of amounts, as quotas need it.

use apimachinery::{Map, Value};

use super::ResourceList;

/// The amounts with these names.
pub fn mask<'a>(list: &ResourceList, names: impl IntoIterator<Item = &'a str>) -> ResourceList {
    names.into_iter().filter_map(|name| Some((name.to_owned(), *list.get(name)?))).collect()
}

/// `from - what`, nothing below zero; names on either side are in the result.
pub fn subtract_to_zero(from: &ResourceList, what: &ResourceList) -> ResourceList {
    let names = from.keys().chain(what.keys());
    let difference = names.map(|name| {
        let mut left = from.get(name).copied().unwrap_or_default();
        if let Some(amount) = what.get(name) {
            left.sub(amount);
        }
        (name.clone(), if left.sign() > 0 { left } else { Default::default() })
    });
    difference.collect()
}

pub fn remove_zeros(mut list: ResourceList) -> ResourceList {
    list.retain(|_, amount| !amount.is_zero());
    list
}

/// Names of amounts below zero.
pub fn negative(list: &ResourceList) -> Vec<&str> {
    list.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect()
}

/// Names of amounts beyond their limit.
pub fn exceeded<'a>(used: &'a ResourceList, hard: &ResourceList) -> Vec<&'a str> {
    let beyond = |(name, amount): &(&String, &_)| hard.get(*name).is_some_and(|limit| *amount > limit);
    used.iter().filter(beyond).map(|(name, _)| name.as_str()).collect()
}

/// The list as it stands in an object.
pub fn to_value(list: &ResourceList) -> Value {
    let amounts = list.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
    Value::Object(amounts.collect::<Map>())
}
