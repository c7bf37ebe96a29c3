//! IPAddress (follows `pkg/registry/networking/ipaddress`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::names;
use jiff::Timestamp;

use crate::columns::{NAME, NONE, age, column, name};
use crate::strategy::{Column, NameRule, Strategy};
use crate::validation::{At, dns1123_subdomain, ip};

const COLUMNS: [Column; 2] = [NAME, column("ParentRef", "string", "Object that has the address.")];

pub struct IPAddress;

impl Strategy for IPAddress {
    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let parent = At::root(obj).at(&["spec", "parentRef"]);
        if !parent.is_set() {
            errors.push(parent.required(""));
            return errors;
        }
        if !parent.get("group").is_empty() {
            dns1123_subdomain(&parent.get("group"), &mut errors);
        }
        for (field, is_required) in [("resource", true), ("name", true), ("namespace", false)] {
            let at = parent.get(field);
            if !at.is_empty() {
                at.check(names::is_path_segment_name, &mut errors);
            } else if is_required {
                errors.push(at.required(""));
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let parent = At::root(obj).at(&["spec", "parentRef"]);
        parent.check_unchanged(&At::root(old).at(&["spec", "parentRef"]), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    /// With an age, for which upstream has no column.
    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), parent(obj).unwrap_or_else(|| NONE.to_owned()).into(), age(obj, now)]
    }

    /// The address itself, in canonical form.
    fn name_rule(&self) -> NameRule {
        |name| {
            let value = Value::from(name);
            let mut errors = ErrorList::new();
            ip::strict(&At::root(&value), &mut errors);
            errors.into_iter().map(|error| error.detail).collect()
        }
    }
}

/// `resource.group/namespace/name`.
fn parent(obj: &Value) -> Option<String> {
    let parent = obj.pointer("/spec/parentRef")?;
    let part = |field: &str| str_at(parent, &[field]);
    let mut text = part("resource").to_lowercase();
    for (separator, field) in [(".", "group"), ("/", "namespace")] {
        if !part(field).is_empty() {
            text = format!("{text}{separator}{}", part(field));
        }
    }
    Some(format!("{text}/{}", part("name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn an_address_belongs_to_one_object() {
        let of = |parent: Value| json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}});
        let check = |parent: Value, expect: &[&str]| expect_errors(&IPAddress.validate(&of(parent)), expect);
        let service = json!({"resource": "services", "namespace": "n", "name": "s"});
        check(service.clone(), &[]);
        check(json!(null), &["spec.parentRef: Required value"]);
        check(
            json!({"name": "a/b"}),
            &[
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Invalid value: \"a/b\": may not",
            ],
        );
        expect_errors(
            &IPAddress
                .validate_update(&of(json!({"resource": "services", "name": "t"})), &of(service.clone())),
            &["spec.parentRef: Invalid value"],
        );
        assert_eq!(IPAddress.row(&of(service), Timestamp::UNIX_EPOCH)[1], "services/n/s");
        assert!(IPAddress.name_rule()("fd00::1").is_empty());
        assert_eq!(IPAddress.name_rule()("fd00:0::1"), ["must be in canonical form (\"fd00::1\")"]);
    }
}
