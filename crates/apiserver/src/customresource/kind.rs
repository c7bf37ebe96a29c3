//! One version of a custom kind, as the pipeline holds it.

use std::sync::{Arc, OnceLock};

use api::catalogue::{GET_PATCH_UPDATE, Kind, Rules, SCALE, Subresource};
use api::resource::{Resource, intern};
use apiextensions::conditions::TERMINATING;
use apiextensions::definition::{Definition, Version as Said};
use apiextensions::typed::{Typed, definition_name};
use apimachinery::Value;
use bytes::Bytes;
use store::Revision;

use super::registry::Shared;
use super::version::Version;
use crate::draft::type_prefix;

/// Every verb that a custom kind serves, in the order in which upstream says them.
const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// A row made at run time, with what only custom kinds need.
#[derive(Debug)]
pub struct CustomKind {
    pub kind: Kind,
    pub version: Arc<Version>,
    pub shared: Arc<Shared>,
    pub served: bool,
    /// What users of a version that is to go are told.
    pub deprecation: Option<String>,
    /// Instances are being deleted, no new ones may come.
    pub terminating: bool,
    typed: OnceLock<Typed>,
}

impl CustomKind {
    pub fn new(definition: &Definition, said: &Said, shared: &Arc<Shared>) -> CustomKind {
        let names = &definition.status.accepted_names;
        let resource = Resource {
            group: intern(&definition.spec.group),
            version: intern(&said.name),
            kind: intern(&names.kind),
            plural: intern(&definition.spec.names.plural),
            singular: intern(&names.singular),
            namespaced: definition.is_namespaced(),
        };
        let version = Arc::new(Version::new(resource, said, shared.clone()));
        let texts = |texts: &[String]| texts.iter().map(|text| intern(text)).collect::<Vec<_>>();
        let type_name = intern(&definition_name(resource.group, resource.version, resource.kind));
        let kind = Kind {
            resource,
            list_kind: intern(&names.list_kind),
            type_name,
            short_names: texts(&names.short_names).into(),
            categories: texts(&names.categories).into(),
            verbs: VERBS,
            subresources: subresources(resource, type_name, said).into(),
            storage: intern(&definition.metadata.name),
            strategy: Rules::Shared(version.clone()),
        };
        CustomKind {
            kind,
            version,
            shared: shared.clone(),
            served: said.served,
            deprecation: definition.deprecation_of(said),
            terminating: definition.has(TERMINATING),
            typed: OnceLock::new(),
        }
    }

    /// The kind's types for managed fields and apply, made when first asked for.
    pub fn typed(&self) -> &Typed {
        self.typed.get_or_init(|| {
            let resource = &self.kind.resource;
            let schema = self.version.schema();
            Typed::new(self.kind.type_name, &resource.gvk(), self.kind.list_kind, schema, api::schema())
        })
    }

    /// Whether these bytes are as this version would show them: written in it, and by no other schema.
    pub fn is_current(&self, bytes: &Bytes, revision: Option<Revision>) -> bool {
        let resource = &self.kind.resource;
        self.shared.is_uniform
            && revision.is_none_or(|revision| revision > self.shared.since)
            && bytes.starts_with(type_prefix(&resource.api_version(), resource.kind).as_bytes())
    }

    /// As `columnDefinitions` of a Table have them.
    pub fn column_definitions(&self) -> Vec<Value> {
        self.version.column_definitions()
    }
}

fn subresources(resource: Resource, type_name: &'static str, said: &Said) -> Vec<Subresource> {
    let mut subresources = Vec::new();
    if said.subresources.status.is_some() {
        let Resource { group, version, kind, .. } = resource;
        subresources.push(Subresource {
            name: "status",
            group,
            version,
            kind,
            type_name,
            verbs: GET_PATCH_UPDATE,
        });
    }
    if said.subresources.scale.is_some() {
        subresources.push(SCALE);
    }
    subresources
}
