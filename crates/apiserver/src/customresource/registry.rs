//! The kinds of each definition, made when first asked for and kept for as long as the definition stays as it is.
//!
//! There is nothing to keep in step: a definition is found in the store by its name, and what was made of it by the
//! revision it was made from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apiextensions::Definition;
use apiextensions::conditions::NAMES_ACCEPTED;
use apiextensions::definition::{Conversion, Version as Said};
use apiextensions::names::Names;
use apimachinery::Value;
use parking_lot::Mutex;
use store::{Entry, Key, Revision, Store};
use tokio_util::sync::CancellationToken;

use super::kind::CustomKind;
use crate::conversion;
use crate::metrics::expressions::Rules;

/// Where definitions are stored.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What all versions of a kind have in common.
#[derive(Debug)]
pub struct Shared {
    /// `foos.example.com`
    pub name: String,
    /// The definition as it was when its kinds were made; schemas are read from it when they are needed.
    pub entry: Arc<Entry>,
    /// Objects written later than this have been brought into form by these schemas.
    pub since: Revision,
    /// Whether all versions have one schema, so that what one has written another need not bring into form.
    pub is_uniform: bool,
    pub conversion: Conversion,
    /// The version that is stored.
    pub storage_version: String,
    /// What rules are measured by.
    pub metrics: Arc<Rules>,
    /// Cancelled when the kinds are no more what they were: watches end.
    pub ended: CancellationToken,
}

/// A definition and the kinds made of it.
#[derive(Debug)]
pub struct Registered {
    /// The definition's latest state.
    pub entry: Arc<Entry>,
    fingerprint: Fingerprint,
    /// Whether its names were accepted, so that its kinds can be asked for.
    pub is_served: bool,
    shared: Arc<Shared>,
    /// All versions, the preferred one first.
    pub kinds: Vec<Arc<CustomKind>>,
    pub names: Names,
    /// Whether it has all the names it asks for.
    pub has_its_names: bool,
}

/// What kinds are made from; as long as it is the same they stay.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    uid: String,
    generation: i64,
    accepted: Names,
    is_served: bool,
    is_deleted: bool,
    has_its_names: bool,
}

impl Registered {
    fn new(entry: Arc<Entry>, previous: Option<&Registered>, metrics: &Arc<Rules>) -> Registered {
        let object = conversion::decode(&entry.bytes);
        let definition = Definition::read(&object);
        let fingerprint = Fingerprint {
            uid: definition.metadata.uid.clone(),
            generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
            accepted: definition.status.accepted_names.clone(),
            is_served: definition.is_served(),
            is_deleted: definition.is_deleted(),
            has_its_names: definition.has(NAMES_ACCEPTED),
        };
        if let Some(previous) = previous.filter(|previous| previous.fingerprint == fingerprint) {
            return Registered {
                entry,
                fingerprint,
                is_served: previous.is_served,
                shared: previous.shared.clone(),
                kinds: previous.kinds.clone(),
                names: previous.names.clone(),
                has_its_names: previous.has_its_names,
            };
        }
        let shared = Arc::new(Shared {
            name: definition.metadata.name.clone(),
            since: entry.revision,
            is_uniform: is_uniform(&definition.spec.versions),
            entry: entry.clone(),
            conversion: definition.spec.conversion.clone(),
            storage_version: definition
                .storage_version()
                .map(|version| version.name.clone())
                .unwrap_or_default(),
            metrics: metrics.clone(),
            ended: CancellationToken::new(),
        });
        let mut versions: Vec<&Said> = definition.spec.versions.iter().collect();
        versions.sort_by(|a, b| apiextensions::names::compare_versions(&a.name, &b.name));
        let kinds =
            versions.into_iter().map(|said| Arc::new(CustomKind::new(&definition, said, &shared))).collect();
        Registered {
            entry,
            is_served: definition.is_served(),
            has_its_names: definition.has(NAMES_ACCEPTED),
            names: definition.status.accepted_names,
            fingerprint,
            shared,
            kinds,
        }
    }

    /// The kinds that can be asked for, the preferred version first.
    pub fn served(&self) -> impl Iterator<Item = &Arc<CustomKind>> {
        self.kinds.iter().filter(|kind| self.is_served && kind.served)
    }
}

fn is_uniform(versions: &[Said]) -> bool {
    versions.windows(2).all(|pair| pair[0].schema.open_api_v3_schema == pair[1].schema.open_api_v3_schema)
}

pub struct Registry {
    metrics: Arc<Rules>,
    /// By the definition's name.
    table: Mutex<HashMap<Arc<str>, Arc<Registered>>>,
    /// The uids of definitions whose instances are being deleted.
    cleanups: Mutex<HashSet<String>>,
}

impl Registry {
    /// The rules of all kinds are measured by these.
    pub fn new(metrics: Arc<Rules>) -> Registry {
        Registry { metrics, table: Mutex::default(), cleanups: Mutex::default() }
    }

    /// The version of a kind that a path names, as the store has it at this moment.
    pub fn kind(&self, store: &Store, group: &str, version: &str, plural: &str) -> Option<Arc<CustomKind>> {
        if group.is_empty() {
            return None;
        }
        let registered = self.find(store, &format!("{plural}.{group}"))?;
        registered.served().find(|kind| kind.kind.resource.version == version).cloned()
    }

    pub fn find(&self, store: &Store, name: &str) -> Option<Arc<Registered>> {
        match store.get(&Key::cluster(DEFINITIONS, name)) {
            Some(entry) => Some(self.of(&entry)),
            None => {
                self.forget(name);
                None
            }
        }
    }

    /// All definitions there are.
    pub fn all(&self, store: &Store) -> Vec<Arc<Registered>> {
        let page = store.range(DEFINITIONS, None, None, None, 0, &|_| true);
        page.map(|page| page.entries.iter().map(|entry| self.of(entry)).collect()).unwrap_or_default()
    }

    /// What was made of this state of a definition, or is now.
    fn of(&self, entry: &Arc<Entry>) -> Arc<Registered> {
        let known = self.table.lock().get(&entry.key.name).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.entry.revision == entry.revision) {
            return known.clone();
        }
        let made = Arc::new(Registered::new(entry.clone(), known.as_deref(), &self.metrics));
        let mut table = self.table.lock();
        // Somebody else may have seen a later state meanwhile.
        match table.get(&entry.key.name) {
            Some(later) if later.entry.revision >= entry.revision => {}
            _ => {
                let before = table.insert(entry.key.name.clone(), made.clone());
                if let Some(before) = before.filter(|before| !Arc::ptr_eq(&before.shared, &made.shared)) {
                    before.shared.ended.cancel();
                }
            }
        }
        made
    }

    /// False when the deletion of this definition's instances is under way.
    pub fn begin_cleanup(&self, uid: &str) -> bool {
        self.cleanups.lock().insert(uid.to_owned())
    }

    pub fn end_cleanup(&self, uid: &str) {
        self.cleanups.lock().remove(uid);
    }

    /// Forgets a definition that is gone; its watches end.
    pub fn forget(&self, name: &str) {
        if let Some(gone) = self.table.lock().remove(name) {
            gone.shared.ended.cancel();
        }
    }
}

/// The schema of one version, from the definition's bytes.
pub fn schema_of(entry: &Entry, version: &str) -> Value {
    let mut object = conversion::decode(&entry.bytes);
    let versions = object["spec"]["versions"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let found = versions.into_iter().find(|said| said["name"] == version);
    found.map(|mut said| said["schema"]["openAPIV3Schema"].take()).unwrap_or_default()
}
