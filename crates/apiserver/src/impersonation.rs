//! Acting as somebody else (`kubectl --as`), for those whom the authorizer lets. Follows `WithImpersonation`.

use std::collections::BTreeMap;

use apimachinery::{Status, percent};
use auth::user::{SERVICE_ACCOUNT_USER_PREFIX, UNAUTHENTICATED};
use auth::{Attributes, UserInfo};
use http::{HeaderMap, HeaderValue};

use crate::core::Core;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
/// What follows names the extra, percent-encoded.
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// A nameless user as upstream's message shows it, which prints a Go value.
fn as_go_prints(uid: &str, groups: &[&str], extra: &BTreeMap<String, Vec<String>>) -> String {
    let list = |items: Vec<&str>| match items.is_empty() {
        true => "[]string(nil)".to_owned(),
        false => {
            let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        }
    };
    let pairs: Vec<String> = extra
        .iter()
        .map(|(key, values)| format!("{key:?}:{}", list(values.iter().map(String::as_str).collect())))
        .collect();
    let extra = match pairs.is_empty() {
        true => "map[string][]string(nil)".to_owned(),
        false => format!("map[string][]string{{{}}}", pairs.join(", ")),
    };
    let groups = list(groups.to_vec());
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{groups}, Extra:{extra}}}")
}

/// The user whom the request is made as: its author, or whom its author may and wants to be.
pub async fn effective_user(core: &Core, author: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
    let first = |name: &str| headers.get(name).map_or(Ok(""), text);
    let (name, uid) = (first(USER)?, first(UID)?);
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<&str>, Status>>()?;
    let extra = extra(headers)?;
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(author);
        }
        return Err(Status::bad_request(format!(
            "requested {} without impersonating a user name",
            as_go_prints(uid, &groups, &extra)
        )));
    }
    let impersonate = Attributes { verb: "impersonate", ..Attributes::of(&author) };
    let may = async |group: &str, resource: &str, namespace: &str, name: &str| {
        // Boxed, as few requests need its room.
        Box::pin(core.check(&Attributes { group, resource, namespace, name, ..impersonate })).await
    };
    let account = name.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account).await?,
        None => may("", "users", "", name).await?,
    }
    for group in &groups {
        may("", "groups", "", group).await?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", uid).await?;
    }
    for (key, values) in &extra {
        for value in values {
            let (group, resource) = ("authentication.k8s.io", "userextras");
            let extra = Attributes { group, resource, subresource: key, name: value, ..impersonate };
            Box::pin(core.check(&extra)).await?;
        }
    }
    let mut user = match account {
        Some((namespace, account)) if groups.is_empty() => UserInfo::service_account(namespace, account, uid),
        _ if name == auth::user::ANONYMOUS => UserInfo::anonymous(),
        _ => UserInfo::new(name, groups.iter().copied().filter(|g| *g != UNAUTHENTICATED)),
    };
    uid.clone_into(&mut user.uid);
    user.extra = extra;
    Ok(user)
}

/// A header that cannot be read is refused: taken for absent, it would leave the request to its author's own power.
fn text(value: &HeaderValue) -> Result<&str, Status> {
    std::str::from_utf8(value.as_bytes())
        .map_err(|_| Status::bad_request("the impersonation headers are not valid UTF-8"))
}

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(percent::decode(key, false)).or_default().push(text(value)?.to_owned());
        }
    }
    Ok(extra)
}
