//! What a request wants to do, as an authorizer sees it, and how a refusal reads (upstream: ForbiddenStatusError).

use apimachinery::{GroupResource, Status, fields, labels};

use crate::user::UserInfo;

/// A request for a resource, or for a bare path when `resource` is empty.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// `get`, `list`, `create` ...; for a bare path the HTTP method in lower case.
    pub verb: &'a str,
    pub group: &'a str,
    /// As the path names it; only others than this server decide by it.
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty for cluster-wide requests.
    pub namespace: &'a str,
    pub name: &'a str,
    /// The URL path; decides only when `resource` is empty.
    pub path: &'a str,
    /// Of a list, watch or deletecollection: which objects it is limited to.
    pub fields: &'a [fields::Term],
    pub labels: &'a [labels::Requirement],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, and by what.
    Allow(String),
    /// No rule speaks for it; the text, when there is one, says what stood in the way.
    NoOpinion(String),
    /// Refused, whatever others would say, and why.
    Deny(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::NoOpinion(reason) | Decision::Deny(reason) => reason,
        }
    }
}

impl<'a> Attributes<'a> {
    /// A request of this user for nothing yet; fill in the rest by struct update.
    pub fn of(user: &'a UserInfo) -> Self {
        Attributes {
            user,
            verb: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            fields: &[],
            labels: &[],
        }
    }

    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Who may not do what.
    pub fn denial(&self) -> String {
        let (user, verb, group) = (&self.user.name, self.verb, self.group);
        if !self.is_resource_request() {
            return format!("User {user:?} cannot {verb} path {:?}", self.path);
        }
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", self.resource, self.subresource);
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?}");
        if self.namespace.is_empty() {
            format!("{what} at the cluster scope")
        } else {
            format!("{what} in the namespace {:?}", self.namespace)
        }
    }

    /// The 403 for a decision that did not allow.
    pub fn forbidden(&self, reason: &str) -> Status {
        let denial = self.denial();
        let message = if reason.is_empty() { denial } else { format!("{denial}: {reason}") };
        Status::forbidden(&GroupResource::new(self.group, self.resource), self.name, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_upstreams() {
        let user = UserInfo::new("x", [""; 0]);
        let list =
            Attributes { verb: "list", resource: "pods", namespace: "default", ..Attributes::of(&user) };
        assert_eq!(
            list.forbidden("").message,
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let scale = Attributes {
            verb: "update",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            ..Attributes::of(&user)
        };
        assert_eq!(
            scale.forbidden("why").message,
            "deployments.apps \"web\" is forbidden: User \"x\" cannot update resource \"deployments/scale\" in API group \"apps\" at the cluster scope: why"
        );
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::of(&user) };
        assert_eq!(path.forbidden("").message, "forbidden: User \"x\" cannot get path \"/metrics\"");
    }
}
