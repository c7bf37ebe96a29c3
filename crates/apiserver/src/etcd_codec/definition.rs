//! Definitions as upstream keeps them: in `v1beta1`, which nobody is served any more. Follows the conversions of
//! `apiextensions/v1beta1` and `v1`.

use apimachinery::{Map, Value, json};

pub const V1BETA1: &str = "apiextensions.k8s.io/v1beta1";

/// What versions may share in `v1beta1`, by its name there and by the one it has within a version.
const SHARED: [(&str, &str); 4] = [
    ("validation", "schema"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// A definition of `v1beta1` in `v1`.
pub fn to_v1(mut definition: Value) -> Value {
    definition["apiVersion"] = "apiextensions.k8s.io/v1".into();
    if let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) {
        convert_spec(spec);
    }
    definition
}

fn convert_spec(spec: &mut Map) {
    let shared = SHARED.map(|(old, new)| (new, spec.remove(old)));
    let only = spec.remove("version");
    let versions = spec.entry("versions").or_insert_with(|| json!([]));
    if let Some(versions) = versions.as_array_mut() {
        if let (true, Some(name)) = (versions.is_empty(), only) {
            versions.push(json!({"name": name, "served": true, "storage": true}));
        }
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            for (field, value) in &shared {
                if let (false, Some(value)) = (version.contains_key(field), value) {
                    version.insert(*field, value.clone());
                }
            }
            version.get_mut("additionalPrinterColumns").map(convert_columns);
        }
    }
    spec.get_mut("conversion").and_then(Value::as_object_mut).map(convert_conversion);
}

fn convert_columns(columns: &mut Value) {
    for column in columns.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(path) = column.remove("JSONPath") {
            column.insert("jsonPath", path);
        }
    }
}

fn convert_conversion(conversion: &mut Map) {
    let config = conversion.remove("webhookClientConfig");
    let review_versions = conversion.remove("conversionReviewVersions");
    if let Some(config) = config {
        let mut webhook = json!({"clientConfig": config});
        if let Some(review_versions) = review_versions {
            webhook["conversionReviewVersions"] = review_versions;
        }
        conversion.insert("webhook", webhook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value) {
        let converted = to_v1(json!({"apiVersion": V1BETA1, "spec": old}));
        assert_eq!(converted, json!({"apiVersion": "apiextensions.k8s.io/v1", "spec": new}));
    }

    #[test]
    fn what_versions_share_each_version_has() {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let own = json!({"openAPIV3Schema": {"type": "object", "nullable": true}});
        check(
            json!({"version": "v1", "validation": schema, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "JSONPath": ".a"}],
                "versions": [{"name": "v1"}, {"name": "v2", "schema": own}]}),
            json!({"versions": [
                {"name": "v1", "schema": schema, "subresources": {"status": {}},
                    "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}]},
                {"name": "v2", "schema": own, "subresources": {"status": {}},
                    "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}]}]}),
        );
    }

    #[test]
    fn a_single_version_becomes_a_list_of_one() {
        check(
            json!({"version": "v1"}),
            json!({"versions": [{"name": "v1", "served": true, "storage": true}]}),
        );
    }

    #[test]
    fn the_webhook_of_a_conversion_is_put_together() {
        check(
            json!({"versions": [], "conversion": {"strategy": "Webhook",
                "webhookClientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]}}),
            json!({"versions": [], "conversion": {"strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]}}}),
        );
    }
}
