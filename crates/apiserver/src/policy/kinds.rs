//! Which kinds are served, and objects in their versions, as policies ask for them.

use std::sync::Arc;

use admission::policy::{Kinds, Scope};
use api::catalogue;
use apimachinery::gvk::GroupVersionKind;
use apimachinery::{Status, Value};

use crate::admission_review::{Review, with_version};
use crate::conversion;
use crate::core::Core;
use crate::kind::KindRef;
use crate::ownership;

impl Kinds for Review<'_> {
    fn params_of(&self, kind: &GroupVersionKind) -> Option<Scope> {
        let found = served(self.core, kind)?;
        Some(Scope { resource: found.storage.to_owned(), namespaced: found.resource.namespaced })
    }

    fn param(&self, kind: &GroupVersionKind, object: Arc<Value>) -> Arc<Value> {
        match served(self.core, kind) {
            Some(KindRef::BuiltIn(row)) if !conversion::is_stored_version(row) => {
                Arc::new(conversion::from_stored(row, Arc::unwrap_or_clone(object)))
            }
            Some(KindRef::Custom(_)) if object["apiVersion"] != kind.group_version().to_string() => {
                Arc::new(with_version(Arc::unwrap_or_clone(object), kind))
            }
            _ => object,
        }
    }

    fn shown(&self, kind: &GroupVersionKind, object: &Value) -> Result<Value, Status> {
        Review::shown(self, kind, object)
    }

    fn taken(&self, kind: &GroupVersionKind, changed: Value, current: &Value) -> Result<Value, Status> {
        Review::taken(self, kind, changed, current)
    }

    fn merged(
        &self,
        kind: &GroupVersionKind,
        object: &Value,
        configuration: &Value,
    ) -> Result<Value, String> {
        let type_name = self.type_name(kind).map_err(|status| status.message)?;
        ownership::laid_over(&self.place.kind, type_name, object, configuration)
    }
}

/// A kind that is stored and served, of whatever origin.
fn served(core: &Core, kind: &GroupVersionKind) -> Option<KindRef> {
    let GroupVersionKind { group, version, kind } = kind;
    if let Some(row) = catalogue::by_kind(group, version, kind) {
        return (!row.storage.is_empty()).then_some(KindRef::BuiltIn(row));
    }
    let registered = core.customresources.all(&core.store).into_iter();
    let mut kinds = registered.flat_map(|registered| registered.served().cloned().collect::<Vec<_>>());
    let is_meant = |resource: &api::Resource| {
        resource.kind == kind && resource.group == group && resource.version == version
    };
    kinds.find(|custom| is_meant(&custom.kind.resource)).map(KindRef::Custom)
}
