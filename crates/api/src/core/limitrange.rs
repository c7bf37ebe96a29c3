//! LimitRange (follows `pkg/registry/core/limitrange` and `ValidateLimitRange`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::names;
use apimachinery::quantity::Quantity;

use crate::core::pod::validation::requirements::{container_resource_name, resource_name};
use crate::defaults::{Fill, each, fill, object_or_new, store_as_none};
use crate::strategy::Strategy;
use crate::validation::{At, is_huge_page_resource, is_native_resource};

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const BOUNDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

pub struct LimitRange;

impl Strategy for LimitRange {
    /// A container's default limit is its maximum, its default request its default limit or the minimum.
    fn default(&self, obj: &mut Value) {
        let Some(spec) = object_or_new(obj, "spec") else { return };
        fill(spec, &[("limits", Fill::Null)]);
        for limit in each(spec, "limits").filter(|limit| limit["type"] == "Container") {
            fill_from(limit, "default", "max");
            fill_from(limit, "defaultRequest", "default");
            fill_from(limit, "defaultRequest", "min");
        }
    }

    fn canonicalize(&self, obj: &mut Value) {
        store_as_none(&mut obj["spec"], &["limits"]);
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn names_itself(&self) -> bool {
        true
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut seen = BTreeSet::new();
        for limit in At::root(obj).at(&["spec", "limits"]).items() {
            let kind = limit.get("type");
            limit_type(&kind, &mut errors);
            if !seen.insert(kind.text()) {
                errors.push(kind.duplicate());
            }
            bounds(&limit, &mut errors);
            relations(&limit, &mut errors);
        }
        errors
    }
}

fn fill_from(limit: &mut Value, field: &str, source: &str) {
    let from = limit[source].as_object().cloned().unwrap_or_default();
    if from.is_empty() {
        return;
    }
    let Some(to) = crate::defaults::object_or_new(limit, field).and_then(Value::as_object_mut) else {
        return;
    };
    for (name, quantity) in from {
        to.entry(name).or_insert(quantity);
    }
}

fn limit_type(kind: &At, errors: &mut ErrorList) {
    let complaints = names::is_qualified_name(kind.text());
    if complaints.is_empty() && !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
        errors.push(kind.invalid("must be a standard limit type or fully qualified"));
    }
    for complaint in complaints {
        errors.push(Error::invalid(&kind.path, kind.text(), complaint));
    }
}

fn bounds(limit: &At, errors: &mut ErrorList) {
    let kind = limit.get("type");
    let check =
        if matches!(kind.text(), "Pod" | "Container") { container_resource_name } else { resource_name };
    for field in BOUNDS {
        let bound = limit.get(field);
        let of_pods = kind.text() == "Pod" && matches!(field, "default" | "defaultRequest");
        if of_pods && !bound.is_empty() {
            errors.push(bound.forbidden("may not be specified when `type` is 'Pod'"));
        } else {
            bound.entries().for_each(|(name, quantity)| check(name, &quantity, errors));
        }
    }
    let storage = ["min", "max"].iter().any(|field| limit.get(field).get("storage").is_set());
    if kind.text() == "PersistentVolumeClaim" && !storage {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(limit.get("limits").required(detail));
    }
}

/// The bounds of one resource.
struct Range<'a> {
    limit: &'a At<'a>,
    name: &'a str,
}

impl Range<'_> {
    fn quantity(&self, field: &str) -> Option<Quantity> {
        self.limit.get(field).get(self.name).quantity()
    }

    fn complain(&self, field: &str, value: &Quantity, detail: String, errors: &mut ErrorList) {
        let path = self.limit.path.child(field).key(self.name);
        errors.push(Error::invalid(&path, value.to_string(), detail));
    }

    /// That one bound is not above another; the complaint shows `shown` at `at`.
    fn ordered(&self, low: (&str, &str), high: (&str, &str), at: &str, shown: &str, errors: &mut ErrorList) {
        let (Some(a), Some(b)) = (self.quantity(low.0), self.quantity(high.0)) else { return };
        if a > b {
            let comparison = if at == low.0 || low.0 != "min" {
                format!("{} value {a} is greater than {} value {b}", low.1, high.1)
            } else {
                format!("min value {a} is greater than {} value {b}", high.1)
            };
            let value = if shown == low.0 { a } else { b };
            self.complain(at, &value, comparison, errors);
        }
    }

    fn ratio(&self, errors: &mut ErrorList) {
        let Some(ratio) = self.quantity("maxLimitRequestRatio") else { return };
        if ratio.milli_value() < 1000 {
            self.complain("maxLimitRequestRatio", &ratio, format!("ratio {ratio} is less than 1"), errors);
        }
        let (Some(min), Some(max)) = (self.quantity("min"), self.quantity("max")) else { return };
        let limit = max.as_f64() / min.as_f64();
        if ratio.as_f64() > limit {
            let detail = format!("ratio {ratio} is greater than max/min = {limit:.6}");
            self.complain("maxLimitRequestRatio", &ratio, detail, errors);
        }
    }

    /// What cannot be overcommitted is requested as it is limited.
    fn overcommit(&self, errors: &mut ErrorList) {
        let allowed = is_native_resource(self.name) && !is_huge_page_resource(self.name);
        let (Some(default), Some(request)) = (self.quantity("default"), self.quantity("defaultRequest"))
        else {
            return;
        };
        if !allowed && default != request {
            let name = self.name;
            let detail =
                format!("default value {default} must equal to defaultRequest value {request} in {name}");
            self.complain("defaultRequest", &request, detail, errors);
        }
    }
}

fn relations(limit: &At, errors: &mut ErrorList) {
    let names: BTreeSet<&str> = BOUNDS
        .iter()
        .filter_map(|field| limit.get(field).map())
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    for name in names {
        let range = Range { limit, name };
        let (min, max) = (("min", "min"), ("max", "max"));
        let (limit, request) = (("default", "default"), ("defaultRequest", "default request"));
        range.ordered(min, max, "min", "min", errors);
        range.ordered(min, request, "defaultRequest", "defaultRequest", errors);
        range.ordered(request, max, "defaultRequest", "defaultRequest", errors);
        range.ordered(request, ("default", "default limit"), "defaultRequest", "defaultRequest", errors);
        range.ordered(min, limit, "default", "min", errors);
        range.ordered(limit, max, "default", "max", errors);
        range.ratio(errors);
        range.overcommit(errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn check(limit: Value, expect: &[&str]) {
        expect_errors(&LimitRange.validate(&json!({"spec": {"limits": [limit]}})), expect);
    }

    #[test]
    fn defaults_follow_from_bounds() {
        let mut obj = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"}}]}});
        LimitRange.default(&mut obj);
        let limit = &obj["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(limit["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
    }

    #[test]
    fn bounds_are_in_order() {
        check(json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}), &[]);
        check(
            json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}}),
            &["spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"],
        );
        check(
            json!({"type": "Container", "defaultRequest": {"cpu": "3"}, "max": {"cpu": "2"}}),
            &[
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 2",
            ],
        );
        check(
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
            &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
        );
        check(
            json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}),
            &[
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        );
    }

    #[test]
    fn each_type_has_its_bounds() {
        check(
            json!({"type": "Pod", "default": {"cpu": "1"}}),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
        check(
            json!({"type": "PersistentVolumeClaim"}),
            &["spec.limits[0].limits: Required value: either minimum or maximum storage"],
        );
        check(
            json!({"type": "Room"}),
            &["spec.limits[0].type: Invalid value: \"Room\": must be a standard limit type"],
        );
    }
}
