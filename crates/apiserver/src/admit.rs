//! Admission as the pipeline calls it: the chain of plugins with a view of the store, and the rule that nobody grants
//! more than they have.

use std::sync::Arc;
use std::time::Duration;

use admission::{Operation, Request, World};
use apimachinery::{Status, Value};
use auth::authorizer::RBAC_GROUP;
use store::{Scope, WatchItem};
use tokio::time::timeout;

use crate::call::Call;
use crate::core::Core;
use crate::metadata;
use crate::write::Place;

/// The account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// Upstream looks for it ten times, a tenth of a second apart.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// The mutating half. `object` is null for a deletion, `old` is none for a creation.
pub fn mutate(
    call: &Call,
    place: &Place,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    call.core.admission.admit(
        &request(call, place, operation, place.part.subresource(), old),
        object,
        &*call.core,
    )
}

/// The validating half, right before the commit.
pub fn validate(
    call: &Call,
    place: &Place,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if place.kind.resource.group == RBAC_GROUP && operation != Operation::Delete {
        call.core.authorizer.check_escalation(&call.user, object, old)?;
    }
    let request = request(call, place, operation, place.part.subresource(), old);
    call.core.admission.validate(&request, object, &*call.core)
}

/// A pod often comes before the default service account of its new namespace: waits for it for a moment.
pub async fn await_default_account(call: &Call, place: &Place, object: &Value) {
    let core = &call.core;
    let awaits = || {
        admission::awaits_default_account(&request(call, place, Operation::Create, "", None), object, &**core)
    };
    if !awaits() {
        return;
    }
    let scope = Scope {
        resource: api::resource::SERVICE_ACCOUNTS.plural.into(),
        namespace: Some(place.key.namespace.clone()),
        name: Some(DEFAULT_ACCOUNT.into()),
    };
    // Watched before looked for once more, so that it cannot come in between unseen.
    let Ok(mut watch) = core.store.watch(scope, core.store.revision()) else { return };
    if !awaits() {
        return;
    }
    let made = async { while let Ok(WatchItem::Progress(_)) = watch.next().await {} };
    if timeout(DEFAULT_ACCOUNT_WAIT, made).await.is_err() {
        tracing::debug!(namespace = %place.key.namespace, "no default service account yet");
    }
}

/// Both halves for what is posted to a subresource of an object: a Binding, an Eviction, a TokenRequest.
pub fn posted(call: &Call, place: &Place, subresource: &str, object: &mut Value) -> Result<(), Status> {
    let request = request(call, place, Operation::Create, subresource, None);
    call.core.admission.admit(&request, object, &*call.core)?;
    call.core.admission.validate(&request, object, &*call.core)
}

fn request<'a>(
    call: &'a Call,
    place: &'a Place,
    operation: Operation,
    subresource: &'a str,
    old: Option<&'a Value>,
) -> Request<'a> {
    let resource = &place.kind.resource;
    Request {
        user: &call.user,
        operation,
        group: resource.group,
        resource: resource.plural,
        subresource,
        namespace: &place.key.namespace,
        name: &place.key.name,
        old,
    }
}

impl World for Core {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let entry = self.store.get(&store::Key::new(resource, namespace, name))?;
        Some(self.decoded.get(&entry))
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let page = self.store.range(resource, namespace, None, None, 0, &|_| true);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        entries.iter().map(|entry| self.decoded.get(entry)).collect()
    }

    fn random_suffix(&self) -> String {
        metadata::generated_name("", &self.config.random)
    }
}

/// Which objects stand under the names that tokens are bound to.
impl auth::Objects for Core {
    fn identity(&self, resource: &str, namespace: &str, name: &str) -> Option<auth::authenticator::Identity> {
        let object = World::get(self, resource, namespace, name)?;
        let text = |field: &str| apimachinery::meta::str_at(&object, &["metadata", field]);
        Some(auth::authenticator::Identity {
            uid: text("uid").to_owned(),
            deleted_at: apimachinery::time::parse_time(text("deletionTimestamp")),
        })
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object(api::resource::SECRETS, namespace, name)
    }
}
