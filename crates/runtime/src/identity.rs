//! Who a container runs as: the pod's and the image's wishes resolved against the image's passwd and group files.

use crate::record::User;

/// What was asked for. The pod's numbers win over the image's user.
#[derive(Debug, Default, Clone)]
pub struct Wish<'a> {
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub user_name: &'a str,
    /// `USER` of the image: `name`, `uid`, `name:group`, ..
    pub image_user: &'a str,
    pub supplemental_groups: &'a [i64],
    /// Whether memberships in the image's group file count (`SupplementalGroupsPolicy` Merge).
    pub merge_groups: bool,
}

/// Follows containerd's `WithUser`, `WithUserID` and `WithAdditionalGIDs`.
pub fn resolve(wish: &Wish, passwd: &str, group: &str) -> Result<User, String> {
    if wish.gid.is_some() && wish.uid.is_none() && wish.user_name.is_empty() {
        // The documentation of CRI's `run_as_group` asks for it.
        return Err("run_as_group without run_as_user or run_as_username".to_owned());
    }
    let (wanted, wanted_group) = match (wish.uid, wish.user_name) {
        (Some(uid), _) => (uid.to_string(), None),
        (None, "") => match wish.image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group)),
            None => (wish.image_user.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    let wanted = if wanted.is_empty() { "0" } else { &wanted };
    let entry = entries(passwd).find(|fields| fields[0] == wanted || field(fields, 2) == wanted);
    let uid = match (wanted.parse().ok(), &entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => number(field(entry, 2))?,
        (None, None) => {
            return Err(format!("unable to find user {wanted}: no matching entries in passwd file"));
        }
    };
    let gid = match (wish.gid, wanted_group.filter(|group| !group.is_empty())) {
        (Some(gid), _) => number(&gid.to_string())?,
        (None, Some(name)) => resolve_group(name, group)?,
        (None, None) => entry.as_ref().map_or(Ok(0), |entry| number(field(entry, 3)))?,
    };
    let mut groups = vec![gid];
    if wish.merge_groups
        && let Some(entry) = &entry
    {
        groups.extend(memberships(entry[0], group));
    }
    for wanted in wish.supplemental_groups {
        groups.push(number(&wanted.to_string())?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    Ok(User { uid, gid, groups })
}

fn resolve_group(wanted: &str, group: &str) -> Result<u32, String> {
    if let Ok(gid) = wanted.parse() {
        return Ok(gid);
    }
    let entry = entries(group).find(|fields| fields[0] == wanted);
    let entry =
        entry.ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?;
    number(field(&entry, 2))
}

fn memberships(name: &str, group: &str) -> Vec<u32> {
    entries(group)
        .filter(|fields| field(fields, 3).split(',').any(|member| member == name))
        .filter_map(|fields| field(&fields, 2).parse().ok())
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3)
}

fn field<'a>(fields: &[&'a str], index: usize) -> &'a str {
    fields.get(index).copied().unwrap_or_default()
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is not a user or group id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\n";

    fn check(wish: Wish, expect: (u32, u32, &[u32])) {
        let user = resolve(&wish, PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.groups.as_slice()), expect, "{wish:?}");
    }

    #[test]
    fn the_pods_numbers_win_over_the_images_user() {
        check(Wish::default(), (0, 0, &[0]));
        check(Wish { image_user: "app", ..Wish::default() }, (1000, 1001, &[1001]));
        check(Wish { image_user: "app:staff", ..Wish::default() }, (1000, 50, &[50]));
        check(Wish { image_user: "65532:65532", ..Wish::default() }, (65532, 65532, &[65532]));
        check(Wish { uid: Some(7), image_user: "app", ..Wish::default() }, (7, 0, &[0]));
        check(Wish { uid: Some(1000), ..Wish::default() }, (1000, 1001, &[1001]));
        check(Wish { uid: Some(7), gid: Some(8), ..Wish::default() }, (7, 8, &[8]));
    }

    #[test]
    fn group_memberships_are_merged_when_asked_for() {
        let wish = Wish { image_user: "app", supplemental_groups: &[2000, 1001], ..Wish::default() };
        check(wish.clone(), (1000, 1001, &[1001, 2000]));
        check(Wish { merge_groups: true, ..wish }, (1000, 1001, &[1001, 50, 2000]));
    }

    #[test]
    fn a_group_without_a_user_is_refused() {
        let refused = resolve(&Wish { gid: Some(8), image_user: "app", ..Wish::default() }, PASSWD, GROUP);
        assert_eq!(refused.unwrap_err(), "run_as_group without run_as_user or run_as_username");
        check(Wish { gid: Some(8), user_name: "app", ..Wish::default() }, (1000, 8, &[8]));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(resolve(&Wish { image_user: "ghost", ..Wish::default() }, PASSWD, GROUP).is_err());
        assert!(resolve(&Wish { image_user: "app:ghost", ..Wish::default() }, PASSWD, GROUP).is_err());
    }
}
