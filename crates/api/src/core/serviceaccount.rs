//! ServiceAccount (follows `pkg/registry/core/serviceaccount`).

use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, name};
use crate::defaults::each;
use crate::strategy::{Column, Strategy};

const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

const COLUMNS: [Column; 2] = [NAME, AGE];

pub struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare_for_create(&self, obj: &mut Value) {
        clean_secret_references(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, _old: &Value) {
        clean_secret_references(obj);
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = |obj: &Value| {
            obj.pointer("/metadata/annotations").is_some_and(|a| a.get(ENFORCE_MOUNTABLE_SECRETS).is_some())
        };
        if !annotated(obj) || old.is_some_and(annotated) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), age(obj, now)]
    }
}

/// A reference to a Secret is its name and nothing else.
fn clean_secret_references(obj: &mut Value) {
    for secret in each(obj, "secrets") {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_referred_to_by_name() {
        let mut obj = json!({"secrets": [{"name": "a", "namespace": "b"}]});
        ServiceAccount.prepare_for_create(&mut obj);
        assert_eq!(obj, json!({"secrets": [{"name": "a"}]}));
    }
}
