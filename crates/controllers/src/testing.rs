//! A cluster in memory for tests: it applies plans as the server would, and hands out typed views.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resource::Resource;
use api::view::View;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use client::PatchType;
use jiff::Timestamp;

use crate::plan::{Action, Plan};

type Place = (&'static str, String, String);

#[derive(Default)]
pub struct Cluster {
    objects: BTreeMap<Place, Value>,
    revision: u64,
    pub now: Timestamp,
    /// What every plan told, in order: reason and message.
    pub told: Vec<(String, String)>,
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).expect("a time")
}

impl Cluster {
    pub fn new() -> Self {
        Cluster { now: at(0), ..Cluster::default() }
    }

    fn place(resource: Resource, namespace: &str, name: &str) -> Place {
        (resource.plural, namespace.to_owned(), name.to_owned())
    }

    pub fn create(&mut self, resource: Resource, mut object: Value) -> Value {
        self.revision += 1;
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        if let Some(prefix) = metadata.get("generateName").and_then(Value::as_str) {
            let name = format!("{prefix}{}", self.revision);
            metadata.entry("name").or_insert(name.into());
        }
        metadata.entry("uid").or_insert(format!("uid-{}", self.revision).into());
        metadata.insert("resourceVersion", self.revision.to_string().into());
        metadata.entry("creationTimestamp").or_insert(self.now.to_string().into());
        metadata.insert("generation", 1.into());
        let place = Self::place(
            resource,
            str_at(&object, &["metadata", "namespace"]),
            str_at(&object, &["metadata", "name"]),
        );
        assert!(!self.objects.contains_key(&place), "{place:?} already exists");
        self.objects.insert(place, object.clone());
        object
    }

    pub fn get<V: View>(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let object = self.objects.get(&Self::place(V::RESOURCE, namespace, name))?;
        Some(Arc::new(apimachinery::from_value(object.clone()).expect("a view")))
    }

    pub fn value(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&Self::place(resource, namespace, name))
    }

    pub fn list<V: View>(&self) -> Vec<Arc<V>> {
        let of_kind = self.objects.iter().filter(|(place, _)| place.0 == V::RESOURCE.plural);
        of_kind.map(|(_, o)| Arc::new(apimachinery::from_value(o.clone()).expect("a view"))).collect()
    }

    /// Changes an object in place; a changed spec raises the generation.
    pub fn edit(&mut self, resource: Resource, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.revision += 1;
        let object =
            self.objects.get_mut(&Self::place(resource, namespace, name)).expect("the object is there");
        let spec = object["spec"].clone();
        change(object);
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        if object["spec"] != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = (generation + 1).into();
        }
    }

    pub fn remove(&mut self, resource: Resource, namespace: &str, name: &str) {
        self.objects.remove(&Self::place(resource, namespace, name));
    }

    /// Carries a plan out, insisting on its preconditions.
    /// Returns what was written last.
    pub fn apply(&mut self, plan: &Plan) -> Value {
        let mut written = Value::Null;
        for event in &plan.events {
            self.told.push((event.reason.to_owned(), event.message.clone()));
        }
        for step in &plan.steps {
            let name = self.act(&step.action);
            let place = Self::place(step.action.resource(), step.action.namespace(), &name);
            written = self.objects.get(&place).cloned().unwrap_or_default();
            if let Some(event) = &step.done {
                let message = event.message.replace(crate::plan::NAME, &name);
                self.told.push((event.reason.to_owned(), message));
            }
        }
        written
    }

    pub fn values(&self, resource: Resource) -> Vec<&Value> {
        let of_kind = self.objects.iter().filter(|(place, _)| place.0 == resource.plural);
        of_kind.map(|(_, object)| object).collect()
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn act(&mut self, action: &Action) -> String {
        match action {
            Action::Create { resource, object, .. } => {
                let made = self.create(*resource, object.clone());
                str_at(&made, &["metadata", "name"]).to_owned()
            }
            Action::Update { resource, namespace, name, subresource, object } => {
                self.check_version(*resource, namespace, name, object);
                self.edit(*resource, namespace, name, |stored| match subresource {
                    Some(_) => {
                        stored["status"] = object["status"].clone();
                        if let Some(annotations) = object["metadata"].get("annotations") {
                            stored["metadata"]["annotations"] = annotations.clone();
                        }
                    }
                    None => *stored = merged(stored, object),
                });
                name.clone()
            }
            Action::Patch { resource, namespace, name, patch, kind, .. } => {
                if !str_at(patch, &["metadata", "resourceVersion"]).is_empty() {
                    self.check_version(*resource, namespace, name, patch);
                }
                let patch = match kind {
                    PatchType::Strategic => self.with_all_conditions(*resource, namespace, name, patch),
                    _ => patch.clone(),
                };
                self.edit(*resource, namespace, name, |stored| merge(stored, &patch));
                name.clone()
            }
            Action::Delete { resource, namespace, name, options } => {
                let stored = self.value(*resource, namespace, name).expect("what is deleted is there");
                if let Some(uid) = &options.uid {
                    assert_eq!(str_at(stored, &["metadata", "uid"]), uid);
                }
                self.remove(*resource, namespace, name);
                name.clone()
            }
            Action::DeleteCollection { resource, namespace } => {
                self.objects.retain(|place, _| place.0 != resource.plural || place.1 != *namespace);
                String::new()
            }
        }
    }

    /// A strategic patch of conditions as the merge patch it comes to: they merge by type.
    fn with_all_conditions(&self, resource: Resource, namespace: &str, name: &str, patch: &Value) -> Value {
        let stored = self.value(resource, namespace, name).expect("what is changed is there");
        let mut all = stored["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for condition in patch["status"]["conditions"].as_array().into_iter().flatten() {
            match all.iter_mut().find(|present| present["type"] == condition["type"]) {
                Some(present) => merge(present, condition),
                None => all.push(condition.clone()),
            }
        }
        let mut patch = patch.clone();
        patch["status"]["conditions"] = all.into();
        patch
    }

    fn check_version(&self, resource: Resource, namespace: &str, name: &str, change: &Value) {
        let stored = self.value(resource, namespace, name).expect("what is changed is there");
        let wanted = str_at(change, &["metadata", "resourceVersion"]);
        assert_eq!(str_at(stored, &["metadata", "resourceVersion"]), wanted, "a stale write to {name}");
    }
}

/// An update keeps what the server owns.
fn merged(stored: &Value, object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["uid", "creationTimestamp", "generation"] {
        object["metadata"][field] = stored["metadata"][field].clone();
    }
    object
}

fn merge(stored: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *stored = patch.clone();
        return;
    };
    if !stored.is_object() {
        *stored = json!({});
    }
    let fields = stored.as_object_mut().expect("it was made an object");
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}
