//! The names of custom kinds: which of those asked for are free, and how versions rank.
//! Follows `pkg/controller/status.NamingConditionController` and `version.CompareKubeAwareVersionStrings`.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::definition::null_is_default;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    pub plural: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub singular: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub short_names: Vec<String>,
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub list_kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub categories: Vec<String>,
}

/// Why names were refused, as a condition tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub reason: &'static str,
    pub message: String,
}

/// The names a definition gets: those asked for that no other of its group has; for the rest it keeps what it had.
pub fn accept(asked: &Names, had: &Names, others: &[Names]) -> (Names, Option<Conflict>) {
    let resources: HashSet<&str> = others
        .iter()
        .flat_map(|names| [&names.plural, &names.singular].into_iter().chain(&names.short_names))
        .map(String::as_str)
        .collect();
    let kinds: HashSet<&str> =
        others.iter().flat_map(|names| [&names.kind, &names.list_kind]).map(String::as_str).collect();
    let mut accepted = had.clone();
    let mut conflict = None;
    let mut settle = |asked: &String, place: &mut String, taken: &HashSet<&str>, reason| {
        if asked != place && taken.contains(asked.as_str()) {
            conflict = Some(Conflict { reason, message: in_use(asked) });
        } else {
            place.clone_from(asked);
        }
    };
    settle(&asked.plural, &mut accepted.plural, &resources, "PluralConflict");
    settle(&asked.singular, &mut accepted.singular, &resources, "SingularConflict");
    let fresh = asked.short_names.iter().filter(|name| !had.short_names.contains(name));
    let taken: Vec<String> =
        fresh.filter(|name| resources.contains(name.as_str())).map(|name| in_use(name)).collect();
    let short_conflict = match &taken[..] {
        [] => {
            accepted.short_names.clone_from(&asked.short_names);
            None
        }
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    };
    let mut conflict_of_kinds = None;
    let mut settle_kind = |asked: &String, place: &mut String, reason| {
        if asked != place && kinds.contains(asked.as_str()) {
            conflict_of_kinds = Some(Conflict { reason, message: in_use(asked) });
        } else {
            place.clone_from(asked);
        }
    };
    settle_kind(&asked.kind, &mut accepted.kind, "KindConflict");
    settle_kind(&asked.list_kind, &mut accepted.list_kind, "ListKindConflict");
    accepted.categories.clone_from(&asked.categories);
    let short_conflict = short_conflict.map(|message| Conflict { reason: "ShortNamesConflict", message });
    (accepted, conflict_of_kinds.or(short_conflict).or(conflict))
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

/// The preferred of two versions first: stable before beta before alpha, higher numbers first, other names last.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major number, minor number.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('0'));
    let major = number(&rest[..digits])?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        rest => {
            let (stability, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
                (Some(minor), _) => (1, minor),
                (None, Some(minor)) => (0, minor),
                (None, None) => return None,
            };
            Some((stability, major, number(minor)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, kind: &str, short: &[&str]) -> Names {
        Names {
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(ToString::to_string).collect(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            categories: Vec::new(),
        }
    }

    #[test]
    fn free_names_are_accepted_and_taken_ones_are_told() {
        let asked = names("foos", "Foo", &["f", "x"]);
        assert_eq!(accept(&asked, &Names::default(), &[names("bars", "Bar", &["b"])]), (asked.clone(), None));
        let (accepted, conflict) = accept(&asked, &Names::default(), &[names("bars", "Bar", &["f"])]);
        let conflict = conflict.expect("is one");
        assert_eq!((conflict.reason, &*conflict.message), ("ShortNamesConflict", "\"f\" is already in use"));
        assert!(accepted.short_names.is_empty() && accepted.kind == "Foo");
        let conflict = accept(&asked, &Names::default(), &[names("others", "Foo", &[])]).1.expect("is one");
        assert_eq!(conflict.reason, "ListKindConflict");
        assert_eq!(accept(&asked, &asked, &[names("others", "Foo", &["f"])]).1, None);
    }

    #[test]
    fn versions_rank_as_kubernetes_ranks_them() {
        let mut versions = [
            "foo10",
            "v1alpha1",
            "v2",
            "v12alpha1",
            "v1",
            "v11beta2",
            "v10beta3",
            "foo1",
            "v3beta1",
            "v10",
            "v11alpha2",
        ];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10"
            ]
        );
    }
}
