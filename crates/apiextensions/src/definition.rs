//! A CustomResourceDefinition as those who serve it read it.

use apimachinery::Value;
use serde::Deserialize;

use crate::conditions::{self, Condition};
use crate::names::Names;

/// The finalizer that keeps a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    pub group: String,
    pub names: Names,
    pub scope: String,
    pub versions: Vec<Version>,
    pub conversion: Conversion,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Version {
    pub name: String,
    pub served: bool,
    pub storage: bool,
    pub deprecated: bool,
    pub deprecation_warning: Option<String>,
    pub schema: Schema,
    pub subresources: Subresources,
    pub additional_printer_columns: Vec<Column>,
    pub selectable_fields: Vec<SelectableField>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Schema {
    #[serde(rename = "openAPIV3Schema")]
    pub open_api_v3_schema: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subresources {
    /// Present when the status is a subresource.
    pub status: Option<Value>,
    pub scale: Option<Scale>,
}

/// Where a custom resource keeps what a Scale shows, as JSON paths: `.spec.replicas`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scale {
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    pub label_selector_path: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    pub json_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectableField {
    pub json_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conversion {
    /// `None` or `Webhook`.
    pub strategy: String,
    pub webhook: Option<Webhook>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    pub client_config: ClientConfig,
    pub conversion_review_versions: Vec<String>,
}

/// How a webhook is reached: by URL or as a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConfig {
    pub url: Option<String>,
    pub service: Option<ServiceReference>,
    /// PEM in base64; the system's authorities when absent.
    pub ca_bundle: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub path: Option<String>,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<Condition>,
    pub accepted_names: Names,
    #[serde(deserialize_with = "null_is_default")]
    pub stored_versions: Vec<String>,
}

/// Go writes an empty list as null where it always writes it.
pub(crate) fn null_is_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Definition {
    /// Reads an object that was validated when it was written.
    pub fn read(object: &Value) -> Definition {
        Deserialize::deserialize(object).unwrap_or_default()
    }

    pub fn is_namespaced(&self) -> bool {
        self.spec.scope == "Namespaced"
    }

    pub fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn has(&self, condition: &str) -> bool {
        conditions::is_true(&self.status.conditions, condition)
    }

    /// Whether its instances can be asked for.
    pub fn is_served(&self) -> bool {
        self.has(conditions::ESTABLISHED)
    }

    pub fn version(&self, name: &str) -> Option<&Version> {
        self.spec.versions.iter().find(|version| version.name == name)
    }

    pub fn storage_version(&self) -> Option<&Version> {
        self.spec.versions.iter().find(|version| version.storage)
    }

    /// Those that are served, the preferred one first.
    pub fn served_versions(&self) -> Vec<&Version> {
        let mut served: Vec<&Version> = self.spec.versions.iter().filter(|version| version.served).collect();
        served.sort_by(|a, b| crate::names::compare_versions(&a.name, &b.name));
        served
    }

    /// What users of a version that is to go are told.
    pub fn deprecation_of(&self, version: &Version) -> Option<String> {
        let group = &self.spec.group;
        let usual = || format!("{group}/{} {} is deprecated", version.name, self.spec.names.kind);
        version.deprecated.then(|| version.deprecation_warning.clone().unwrap_or_else(usual))
    }
}
