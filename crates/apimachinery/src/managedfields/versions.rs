//! Fields of one kind in several versions. Each manager's fields are named in the version it wrote, so what a write
//! changes for it is found in that version (follows structured-merge-diff's `Updater`, which converts for each manager).

use std::collections::BTreeMap;

use super::compare::Comparison;
use super::manager::FieldManager;
use super::set::Set;
use crate::Value;
use crate::schema::TypeId;

/// Brings objects of one kind from version to version.
pub trait Versions {
    /// The kind's type in a version such as `apps/v1`; none where it is not known in it.
    fn root(&self, api_version: &str) -> Option<TypeId>;

    /// An object of one version in another one, both known.
    fn convert(&self, object: Value, from: &str, to: &str) -> Value;
}

/// For kinds of one version, and those whose objects cannot be converted here: all fields are taken for that version's.
pub struct OneVersion;

impl Versions for OneVersion {
    fn root(&self, _api_version: &str) -> Option<TypeId> {
        None
    }

    fn convert(&self, object: Value, _from: &str, _to: &str) -> Value {
        object
    }
}

impl<'a> FieldManager<'a> {
    /// The same in another version, if the kind is known in it; else itself.
    pub(super) fn at<'b>(&'b self, api_version: &'b str) -> FieldManager<'b> {
        if api_version == self.api_version {
            return *self;
        }
        match self.versions.root(api_version) {
            Some(root) => FieldManager { root, api_version, ..*self },
            None => *self,
        }
    }

    fn brought(&self, object: Value, to: &FieldManager<'_>) -> Value {
        if self.api_version == to.api_version {
            return object;
        }
        self.versions.convert(object, self.api_version, to.api_version)
    }

    /// Takes out of a merged object what the manager applied last and no longer does, unless `owned` says, by version,
    /// that somebody owns it.
    pub(super) fn prune(
        &self,
        merged: Value,
        (applied_in, last): (&str, &Set),
        mut owned: BTreeMap<String, Set>,
    ) -> Value {
        let then = self.at(applied_in);
        let mut merged = self.brought(merged, &then);
        let typed = self.typed();
        let last = typed.with_named_fields(then.root(), last);
        let mut pruned = typed.remove(then.root(), merged.clone(), &last);
        // What is owned in the version that was pruned comes back first: other versions may not do without it.
        let first = owned.remove(then.api_version).map(|set| (then.api_version.to_owned(), set));
        let mut at = then;
        let owned: Vec<(String, Set)> = first.into_iter().chain(owned).collect();
        for (version, set) in &owned {
            let there = self.at(version);
            merged = at.brought(merged, &there);
            pruned = at.brought(pruned, &there);
            let named = |set: &Set| typed.with_named_fields(there.root(), set);
            let all = named(&typed.field_set(there.root(), &merged));
            let left = named(&typed.field_set(there.root(), &pruned));
            let lost = all.difference(&left.union(named(set)));
            pruned = typed.remove(there.root(), merged.clone(), &lost);
            at = there;
        }
        merged = at.brought(merged, &then);
        pruned = at.brought(pruned, &then);
        let named = |set: &Set| typed.with_named_fields(then.root(), set);
        let all = named(&typed.field_set(then.root(), &merged));
        let left = named(&typed.field_set(then.root(), &pruned));
        let pruned = typed.remove(then.root(), merged, &all.difference(&left).intersection(&last));
        then.brought(pruned, self)
    }
}

/// What differs between two objects, in each version that is asked for.
pub(super) struct Comparisons<'a> {
    fields: FieldManager<'a>,
    live: &'a Value,
    new: &'a Value,
    made: BTreeMap<String, Differences>,
}

/// What a write does to fields, in the words of one version.
pub(super) struct Differences {
    pub removed: Set,
    /// What has another value than before, or one for the first time.
    pub changed: Set,
}

impl From<Comparison> for Differences {
    fn from(found: Comparison) -> Self {
        Differences { removed: found.removed, changed: found.modified.union(found.added) }
    }
}

impl<'a> Comparisons<'a> {
    /// Of two objects in the version of `fields`.
    pub fn new(fields: FieldManager<'a>, live: &'a Value, new: &'a Value) -> Self {
        Comparisons { fields, live, new, made: BTreeMap::new() }
    }

    pub fn of(&mut self, api_version: &str) -> &Differences {
        let there = self.fields.at(api_version);
        self.made.entry(there.api_version.to_owned()).or_insert_with(|| {
            if there.api_version == self.fields.api_version {
                return there.compare(self.live, self.new).into();
            }
            let live = self.fields.brought(self.live.clone(), &there);
            there.compare(&live, &self.fields.brought(self.new.clone(), &there)).into()
        })
    }

    /// What has another value in the writer's own version than before, or one for the first time.
    pub fn changed(mut self) -> Set {
        let own = self.fields.api_version;
        self.of(own);
        self.made.remove(own).map(|found| found.changed).unwrap_or_default()
    }
}
