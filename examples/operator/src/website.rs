//! The kind: a few pages under names.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pages that belong together.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Website",
    namespaced,
    status = "WebsiteStatus",
    shortname = "site"
)]
#[kube(printcolumn = r#"{"name": "Pages", "type": "integer", "jsonPath": ".status.pages"}"#)]
#[kube(
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
pub struct WebsiteSpec {
    /// HTML by file name.
    pub pages: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct WebsiteStatus {
    /// How many pages the ConfigMap has.
    pub pages: usize,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl WebsiteSpec {
    /// Why these pages cannot be served, if they cannot.
    pub fn fault(&self) -> Option<String> {
        if self.pages.is_empty() {
            return Some("a website has at least one page".to_owned());
        }
        let strange = self.pages.keys().find(|name| !name.ends_with(".html"));
        strange.map(|name| format!("{name:?} does not end in .html"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_website_has_pages_with_proper_names() {
        let fault = |names: &[&str]| {
            let pages = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
            WebsiteSpec { pages }.fault()
        };
        assert_eq!(fault(&["index.html"]), None);
        assert_eq!(fault(&[]).as_deref(), Some("a website has at least one page"));
        assert_eq!(fault(&["a.html", "b.txt"]).as_deref(), Some("\"b.txt\" does not end in .html"));
    }
}
