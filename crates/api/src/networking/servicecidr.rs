//! ServiceCIDR (follows `pkg/registry/networking/servicecidr`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill};
use crate::objectmeta::FIELD_IMMUTABLE;
use crate::strategy::{Column, Strategy, keep, keep_all_metadata};
use crate::validation::{At, ip};

/// The name of the one that every cluster has.
pub const DEFAULT_NAME: &str = "kubernetes";
/// Keeps a range from going while Services have addresses of it.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// One of each family.
const CIDRS_MAX: usize = 2;

const COLUMNS: [Column; 3] = [NAME, column("CIDRs", "string", "Ranges of Service addresses."), AGE];

pub struct ServiceCIDR;

impl Strategy for ServiceCIDR {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = apimachinery::json!({});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        cidrs(&At::root(obj).get("spec"), &mut errors);
        errors
    }

    /// A second family may be added; nothing else changes.
    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        let (new, old) = (spec.get("cidrs"), At::root(old).at(&["spec", "cidrs"]));
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            errors.push(new.invalid(FIELD_IMMUTABLE));
            return errors;
        }
        for (new, _) in new.items().zip(old.items()).filter(|(new, old)| new.value != old.value) {
            errors.push(new.invalid(FIELD_IMMUTABLE));
        }
        if new.len() != old.len() {
            cidrs(&spec, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs = At::root(obj).at(&["spec", "cidrs"]).texts().join(",");
        vec![name(obj), cidrs.into(), age(obj, now)]
    }
}

fn cidrs(spec: &At, errors: &mut ErrorList) {
    let cidrs = spec.get("cidrs");
    if cidrs.is_empty() {
        errors.push(cidrs.required("at least one CIDR required"));
        return;
    }
    if cidrs.len() > CIDRS_MAX {
        errors.push(spec.under(&cidrs.path).invalid("may only hold up to 2 values"));
        return;
    }
    for cidr in cidrs.items() {
        ip::strict_cidr(&cidr, errors);
    }
    let families: Vec<bool> =
        cidrs.texts().into_iter().filter_map(ip::Subnet::parse).map(|s| s.address.is_ipv4()).collect();
    if let [first, second] = families[..]
        && first == second
    {
        errors.push(cidrs.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn ranges_are_canonical_one_of_each_family_and_stay() {
        let of = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
        let check =
            |cidrs: &[&str], expect: &[&str]| expect_errors(&ServiceCIDR.validate(&of(cidrs)), expect);
        check(&["10.0.0.0/24", "fd00::/112"], &[]);
        check(&[], &["spec.cidrs: Required value: at least one CIDR required"]);
        check(&["10.0.0.1/24"], &["spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set"]);
        check(
            &["fd00:0::/112"],
            &["spec.cidrs[0]: Invalid value: \"fd00:0::/112\": must be in canonical form"],
        );
        check(
            &["10.0.0.0/24", "10.1.0.0/24"],
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one IP",
            ],
        );
        let update = |old: &[&str], new: &[&str], expect: &[&str]| {
            expect_errors(&ServiceCIDR.validate_update(&of(new), &of(old)), expect);
        };
        update(&["10.0.0.0/24"], &["10.0.0.0/24", "fd00::/112"], &[]);
        update(
            &["10.0.0.0/24"],
            &["10.1.0.0/24"],
            &["spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"],
        );
        update(&["10.0.0.0/24", "fd00::/112"], &["10.0.0.0/24"], &["spec.cidrs: Invalid value"]);
    }
}
