//! The ConfigMap that says since when the use of service account tokens that are kept in Secrets is noted. Follows
//! `legacytokentracking.Controller`.

use api::resource;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::{Duty, Write, stored_one};
use crate::core::Core;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const SINCE: &str = "since";
const DATE: &str = "%Y-%m-%d";

pub const DUTY: Duty = Duty {
    watched: &[resource::CONFIG_MAPS],
    all: |core| settle(core).into_iter().collect(),
    after: |core, change| change.is_of(NAMESPACE, NAME).then(|| settle(core)).flatten().into_iter().collect(),
};

fn settle(core: &Core) -> Option<Write> {
    let today = (core.config.clock)().strftime(DATE).to_string();
    decide(stored_one(core, resource::CONFIG_MAPS, NAMESPACE, NAME), &today)
}

/// A date that is there stays; anything else gives way to today's.
fn decide(found: Option<Value>, today: &str) -> Option<Write> {
    let Some(mut found) = found else {
        let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": {SINCE: today}});
        return Some(Write::Create(resource::CONFIG_MAPS, map));
    };
    if jiff::civil::Date::strptime(DATE, str_at(&found, &["data", SINCE])).is_ok() {
        return None;
    }
    if !found["data"].is_object() {
        found["data"] = json!({});
    }
    found["data"][SINCE] = today.into();
    Some(Write::Update(resource::CONFIG_MAPS, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_day_is_kept_and_nonsense_is_not() {
        let Some(Write::Create(_, created)) = decide(None, "2026-11-21") else { panic!("is created") };
        assert_eq!(decide(Some(created.clone()), "2027-01-01"), None);
        let mut spoilt = created;
        spoilt["data"] = json!({"since": "yesterday", "more": "x"});
        let Some(Write::Update(_, updated)) = decide(Some(spoilt), "2027-01-01") else {
            panic!("is updated")
        };
        assert_eq!(updated["data"], json!({"since": "2027-01-01", "more": "x"}));
        let empty = json!({"metadata": {"name": NAME}});
        assert!(matches!(decide(Some(empty), "2027-01-01"), Some(Write::Update(..))));
    }
}
