//! Keys and their values, in the keys' order.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::{mem, ops, slice, vec};

use either::Either;

use super::{Text, Value};

/// A list of more fields than this costs more to keep sorted than a tree. No type of Kubernetes has so many.
const FEW: usize = 64;

/// Among so few keys, which mostly differ in length, looking at each is quicker than halving.
const SCANNED: usize = 16;

/// Keys and their values, in the order of the keys' bytes.
#[derive(Clone)]
pub struct Map(Fields);

#[derive(Clone)]
enum Fields {
    /// Sorted, each key once.
    Few(Vec<(Text, Value)>),
    #[expect(clippy::box_collection, reason = "every value would be larger for the few maps that are")]
    Many(Box<BTreeMap<Text, Value>>),
}

use Fields::{Few, Many};

/// Where the key is, or belongs.
fn place(fields: &[(Text, Value)], key: &str) -> Result<usize, usize> {
    // Mostly fields come in their order.
    match fields.last() {
        Some((last, _)) if last.as_str() >= key => {
            fields.binary_search_by(|(other, _)| other.as_str().cmp(key))
        }
        _ => Err(fields.len()),
    }
}

fn find(fields: &[(Text, Value)], key: &str) -> Option<usize> {
    if fields.len() <= SCANNED {
        fields.iter().position(|(other, _)| other.as_str() == key)
    } else {
        fields.binary_search_by(|(other, _)| other.as_str().cmp(key)).ok()
    }
}

impl Map {
    pub const fn new() -> Map {
        Map(Few(Vec::new()))
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Few(fields) => fields.len(),
            Many(fields) => fields.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A list keeps its room.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Few(fields) => fields.clear(),
            Many(_) => *self = Map::new(),
        }
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        match &self.0 {
            Few(fields) => find(fields, key).map(|at| &fields[at].1),
            Many(fields) => fields.get(key),
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match &mut self.0 {
            Few(fields) => find(fields, key).map(|at| &mut fields[at].1),
            Many(fields) => fields.get_mut(key),
        }
    }

    /// The value that was there before.
    pub fn insert(&mut self, key: impl Into<Text>, value: Value) -> Option<Value> {
        let key = key.into();
        self.make_room(&key);
        match &mut self.0 {
            Few(fields) => match place(fields, &key) {
                Ok(at) => Some(mem::replace(&mut fields[at].1, value)),
                Err(at) => {
                    fields.insert(at, (key, value));
                    None
                }
            },
            Many(fields) => fields.insert(key, value),
        }
    }

    /// Makes a tree of a list that this key would make too long.
    fn make_room(&mut self, key: &str) {
        if let Few(fields) = &mut self.0
            && fields.len() == FEW
            && find(fields, key).is_none()
        {
            self.0 = Many(Box::new(mem::take(fields).into_iter().collect()));
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        match &mut self.0 {
            Few(fields) => find(fields, key).map(|at| fields.remove(at).1),
            Many(fields) => fields.remove(key),
        }
    }

    pub fn entry(&mut self, key: impl Into<Text>) -> Entry<'_> {
        Entry { map: self, key: key.into() }
    }

    pub fn iter(&self) -> Iter<'_> {
        self.into_iter()
    }

    pub fn iter_mut(&mut self) -> IterMut<'_> {
        self.into_iter()
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Text> + DoubleEndedIterator + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + DoubleEndedIterator + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Value> + DoubleEndedIterator {
        self.iter_mut().map(|(_, value)| value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Text, &mut Value) -> bool) {
        match &mut self.0 {
            Few(fields) => fields.retain_mut(|(key, value)| keep(key, value)),
            Many(fields) => fields.retain(keep),
        }
    }
}

impl Default for Map {
    fn default() -> Map {
        Map::new()
    }
}

/// The place for a key.
pub struct Entry<'m> {
    map: &'m mut Map,
    key: Text,
}

impl<'m> Entry<'m> {
    pub fn or_insert(self, value: Value) -> &'m mut Value {
        self.or_insert_with(|| value)
    }

    pub fn or_insert_with(self, value: impl FnOnce() -> Value) -> &'m mut Value {
        let Entry { map, key } = self;
        map.make_room(&key);
        match &mut map.0 {
            Few(fields) => {
                let at = place(fields, &key).unwrap_or_else(|at| {
                    fields.insert(at, (key, value()));
                    at
                });
                &mut fields[at].1
            }
            Many(fields) => fields.entry(key).or_insert_with(value),
        }
    }
}

/// A later value of a key takes an earlier one's place.
impl<K: Into<Text>> FromIterator<(K, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(fields: I) -> Map {
        let mut map = Map::new();
        map.extend(fields);
        map
    }
}

impl<K: Into<Text>> Extend<(K, Value)> for Map {
    fn extend<I: IntoIterator<Item = (K, Value)>>(&mut self, fields: I) {
        let fields = fields.into_iter();
        if let Few(own) = &mut self.0 {
            own.reserve(fields.size_hint().0.min(FEW));
        }
        for (key, value) in fields {
            self.insert(key, value);
        }
    }
}

impl<K: Into<Text>, const N: usize> From<[(K, Value); N]> for Map {
    fn from(fields: [(K, Value); N]) -> Map {
        fields.into_iter().collect()
    }
}

/// Panics when there is no such key.
impl<Q: Borrow<str> + ?Sized> ops::Index<&Q> for Map {
    type Output = Value;

    fn index(&self, key: &Q) -> &Value {
        let key = key.borrow();
        self.get(key).unwrap_or_else(|| panic!("there is no key {key:?}"))
    }
}

/// An iterator over a map's fields in the keys' order, whichever way they are kept.
macro_rules! iterator {
    ($name:ident, $few:ty, $many:ty, $item:ty, $field:expr) => {
        #[derive(Debug)]
        pub struct $name<'m>(Either<$few, $many>);

        impl<'m> Iterator for $name<'m> {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                match &mut self.0 {
                    Either::Left(few) => few.next().map($field),
                    Either::Right(many) => many.next(),
                }
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                match &self.0 {
                    Either::Left(few) => few.size_hint(),
                    Either::Right(many) => many.size_hint(),
                }
            }
        }

        impl<'m> DoubleEndedIterator for $name<'m> {
            fn next_back(&mut self) -> Option<$item> {
                match &mut self.0 {
                    Either::Left(few) => few.next_back().map($field),
                    Either::Right(many) => many.next_back(),
                }
            }
        }

        impl ExactSizeIterator for $name<'_> {}
    };
}

iterator!(
    Iter,
    slice::Iter<'m, (Text, Value)>,
    btree_map::Iter<'m, Text, Value>,
    (&'m Text, &'m Value),
    |(key, value)| (key, value)
);

iterator!(
    IterMut,
    slice::IterMut<'m, (Text, Value)>,
    btree_map::IterMut<'m, Text, Value>,
    (&'m Text, &'m mut Value),
    |(key, value)| (&*key, value)
);

impl Clone for Iter<'_> {
    fn clone(&self) -> Self {
        Iter(self.0.clone())
    }
}

impl<'m> IntoIterator for &'m Map {
    type Item = (&'m Text, &'m Value);
    type IntoIter = Iter<'m>;

    fn into_iter(self) -> Iter<'m> {
        Iter(match &self.0 {
            Few(fields) => Either::Left(fields.iter()),
            Many(fields) => Either::Right(fields.iter()),
        })
    }
}

impl<'m> IntoIterator for &'m mut Map {
    type Item = (&'m Text, &'m mut Value);
    type IntoIter = IterMut<'m>;

    fn into_iter(self) -> IterMut<'m> {
        IterMut(match &mut self.0 {
            Few(fields) => Either::Left(fields.iter_mut()),
            Many(fields) => Either::Right(fields.iter_mut()),
        })
    }
}

impl IntoIterator for Map {
    type Item = (Text, Value);
    type IntoIter = Either<vec::IntoIter<(Text, Value)>, btree_map::IntoIter<Text, Value>>;

    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Few(fields) => Either::Left(fields.into_iter()),
            Many(fields) => Either::Right(fields.into_iter()),
        }
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl Eq for Map {}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}
