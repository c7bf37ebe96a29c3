//! Acting as somebody else (`kubectl --as`), for those whom the authorizer lets. Follows `WithImpersonation`.

use apimachinery::Status;
use auth::user::{SERVICE_ACCOUNT_USER_PREFIX, UNAUTHENTICATED};
use auth::{Attributes, UserInfo};
use http::HeaderMap;

use crate::core::Core;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";

/// The user whom the request is made as: its author, or whom its author may and wants to be.
pub fn effective_user(core: &Core, author: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (name, uid) = (text(USER), text(UID));
    let groups: Vec<&str> = headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).collect();
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() {
            return Ok(author);
        }
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    }
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let wanted =
            Attributes { verb: "impersonate", group, resource, namespace, name, ..Attributes::of(&author) };
        core.authorizer.check(&wanted)
    };
    let account = name.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", name)?,
    }
    for group in &groups {
        may("", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", uid)?;
    }
    let mut user = match account {
        Some((namespace, account)) if groups.is_empty() => UserInfo::service_account(namespace, account, uid),
        _ if name == auth::user::ANONYMOUS => UserInfo::anonymous(),
        _ => UserInfo::new(name, groups.iter().copied().filter(|g| *g != UNAUTHENTICATED)),
    };
    uid.clone_into(&mut user.uid);
    Ok(user)
}
