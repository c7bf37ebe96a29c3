//! In-tree admission: what may be written beyond what the kind's own rules say, and what the server fills in from
//! other objects. Plugins are pure functions of the request, the object and a view of the stored objects.

mod chain;
mod request;

// Plugins.
mod alwayspullimages;
mod antiaffinity;
mod certificates;
mod defaultclass;
mod defaulttolerationseconds;
mod denyserviceexternalips;
mod extendedresourcetoleration;
mod lifecycle;
mod limitranger;
mod noderestriction;
mod nodetaint;
mod ownerreferences;
mod persistentvolumeclaimresize;
mod podresize;
pub mod podsecurity;
mod podtopologylabels;
mod priority;
pub mod resourcequota;
mod runtimeclass;
mod serviceaccount;
mod storageobjectinuseprotection;
mod tolerations;

// Those who are asked from outside.
mod conditions;
mod expression;
pub mod policy;
pub mod rounds;
pub mod rules;
pub mod webhook;

#[cfg(test)]
mod testing;

pub use chain::{
    Chain, MUTATING_POLICY, MUTATING_WEBHOOK, Plugin, Selection, SelectionError, VALIDATING_POLICY,
    VALIDATING_WEBHOOK,
};
pub use request::{Notes, Operation, Request, Said, World};
pub use serviceaccount::awaits_default_account;

/// Several errors as one, as upstream's `NewAggregate` writes them.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}
