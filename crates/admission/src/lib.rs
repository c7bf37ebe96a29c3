//! In-tree admission: what may be written beyond what the kind's own rules say, and what the server fills in from
//! other objects. Plugins are pure functions of the request, the object and a view of the stored objects.

mod chain;
mod defaulttolerationseconds;
mod lifecycle;
mod noderestriction;
mod nodetaint;
mod ownerreferences;
mod priority;
mod request;
mod serviceaccount;
#[cfg(test)]
mod testing;

pub use chain::{Chain, Plugin};
pub use ownerreferences::{MayDelete, OwnerReferencesPermissionEnforcement};
pub use request::{Operation, Request, World};
pub use serviceaccount::awaits_default_account;
