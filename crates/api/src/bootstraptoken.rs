//! Bootstrap tokens as objects: the names of their Secrets and of what these hold, and of the ConfigMap that they sign.
//! Whoever makes, believes, signs with or clears away tokens says them here (follows `cluster-bootstrap/token/api`).

use std::ops::RangeInclusive;

/// Where the Secrets are.
pub const NAMESPACE: &str = "kube-system";
/// What a Secret's name begins with; the token's id follows.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Keys of the Secret.
pub const TOKEN_ID: &str = "token-id";
pub const TOKEN_SECRET: &str = "token-secret";
pub const EXPIRATION: &str = "expiration";
pub const DESCRIPTION: &str = "description";
/// Further groups of whoever shows the token, separated by commas.
pub const EXTRA_GROUPS: &str = "auth-extra-groups";
/// Usages, each `"true"` or not.
pub const USAGE_AUTHENTICATION: &str = "usage-bootstrap-authentication";
pub const USAGE_SIGNING: &str = "usage-bootstrap-signing";

pub const ID_BYTES: usize = 6;
pub const SECRET_BYTES: usize = 16;
/// What both halves of a token are made of.
pub const LETTERS: [RangeInclusive<u8>; 2] = [b'0'..=b'9', b'a'..=b'z'];

/// Namespace and name of the ConfigMap that tells who has not joined yet where the cluster is and who its authority is.
pub const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
/// Its key, and what begins the keys of the signatures over that; a token's id follows.
pub const KUBECONFIG: &str = "kubeconfig";
pub const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

pub fn is_id(text: &str) -> bool {
    is_word(text, ID_BYTES)
}

pub fn is_secret(text: &str) -> bool {
    is_word(text, SECRET_BYTES)
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| LETTERS.iter().any(|range| range.contains(&byte)))
}
