//! An identity, as `authentication.k8s.io` spells it, and the names that mean something to the server itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Members may do everything, whatever RBAC says.
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const NODES: &str = "system:nodes";
pub const NODE_USER_PREFIX: &str = "system:node:";
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
pub const SERVICE_ACCOUNT_USER_PREFIX: &str = "system:serviceaccount:";
/// The extra that names the credential a request was made with.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The extra attribute that names the node on which the pod runs whose service account asks.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    #[serde(rename = "username", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user: member of `system:authenticated` besides the groups given.
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        UserInfo { name: name.into(), groups, ..Default::default() }
    }

    pub fn anonymous() -> Self {
        UserInfo {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Default::default()
        }
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        let mut user = UserInfo::new(service_account_user(namespace, name), groups);
        user.uid = uid.to_owned();
        user
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node this identity speaks for: a `system:node:NAME` that is in `system:nodes`.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty() && self.is_in(NODES))
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_USER_PREFIX}{namespace}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_system_nodes_speak_for_a_node() {
        assert_eq!(UserInfo::new("system:node:a", [NODES]).node(), Some("a"));
        assert_eq!(UserInfo::new("system:node:a", [MASTERS]).node(), None);
        assert_eq!(UserInfo::new("system:node:", [NODES]).node(), None);
    }

    #[test]
    fn a_service_account_belongs_to_its_three_groups() {
        let user = UserInfo::service_account("ns", "sa", "u");
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
        );
    }
}
