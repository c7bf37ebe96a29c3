//! Whether a grant gives nothing that its giver does not have (upstream: rbac validation's Covers).

use super::rule::{PolicyRule, Word, has, has_or_all, url_covers};

/// The parts of `wanted` that `owned` does not cover, as rules whose verbs are gathered for reading.
pub fn uncovered(owned: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let missing =
        wanted.iter().flat_map(break_down).filter(|rule| !owned.iter().any(|owner| covers(owner, rule)));
    compact(missing)
}

/// Splits a rule into rules of one verb, one resource and at most one name each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |word: &Word| -> Box<[Word]> { Box::new([word.clone()]) };
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Default::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part.clone());
                }
                let named = |name| PolicyRule { resource_names: one(name), ..part.clone() };
                parts.extend(rule.resource_names.iter().map(named));
            }
        }
        let url = |url| PolicyRule { verbs: one(verb), non_resource_urls: one(url), ..Default::default() };
        parts.extend(rule.non_resource_urls.iter().map(url));
    }
    parts
}

/// Whether one rule covers a broken-down one.
fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let resource = |wanted: &Word| {
        has_or_all(&owner.resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| has(&owner.resources, &format!("*/{sub}")))
    };
    let names = if part.resource_names.is_empty() {
        owner.resource_names.is_empty()
    } else {
        owner.resource_names.is_empty() || part.resource_names.iter().all(|n| has(&owner.resource_names, n))
    };
    let url = |wanted: &Word| owner.non_resource_urls.iter().any(|url| url_covers(url, wanted));
    part.verbs.iter().all(|verb| has_or_all(&owner.verbs, verb))
        && part.api_groups.iter().all(|group| has_or_all(&owner.api_groups, group))
        && part.resources.iter().all(resource)
        && part.non_resource_urls.iter().all(url)
        && names
}

/// Gathers the verbs of rules that are equal but for them.
fn compact(parts: impl Iterator<Item = PolicyRule>) -> Vec<PolicyRule> {
    let mut rules: Vec<(PolicyRule, Vec<Word>)> = Vec::new();
    for mut part in parts {
        let verbs = std::mem::take(&mut part.verbs).into_vec();
        match rules.iter_mut().find(|(rule, _)| *rule == part) {
            Some((_, known)) => known.extend(verbs),
            None => rules.push((part, verbs)),
        }
    }
    rules.into_iter().map(|(rule, verbs)| PolicyRule { verbs: verbs.into(), ..rule }).collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use proptest::prelude::*;

    use super::*;

    fn rules(value: Value) -> Vec<PolicyRule> {
        apimachinery::from_value(value).expect("rules")
    }

    fn check(owned: Value, wanted: Value, expect: &[&str]) {
        let owned = rules(owned);
        let missing = uncovered(&owned.iter().collect::<Vec<_>>(), &rules(wanted));
        assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn what_the_giver_lacks_is_named() {
        let owned = json!([{"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get"]}]);
        check(owned.clone(), json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]), &[]);
        check(owned.clone(), json!([{"apiGroups": [""], "resources": ["x/scale"], "verbs": ["get"]}]), &[]);
        check(
            owned.clone(),
            json!([{"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "list"]}]),
            &[
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
            ],
        );
        check(
            owned,
            json!([{"nonResourceURLs": ["/x"], "verbs": ["get"]}]),
            &[r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#],
        );
    }

    #[test]
    fn names_cover_only_themselves() {
        let one =
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]}]);
        let all = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        check(all.clone(), one.clone(), &[]);
        check(one, all, &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#]);
    }

    fn arbitrary_rule() -> impl Strategy<Value = PolicyRule> {
        let words = |choice: &'static [&'static str]| {
            proptest::sample::subsequence(choice, 1..=choice.len())
                .prop_map(|words| words.into_iter().map(Word::from).collect::<Box<[Word]>>())
        };
        (words(&["", "apps", "*"]), words(&["pods", "pods/log", "*"]), words(&["get", "list", "*"])).prop_map(
            |(api_groups, resources, verbs)| PolicyRule {
                api_groups,
                resources,
                verbs,
                ..Default::default()
            },
        )
    }

    proptest! {
        #[test]
        fn every_rule_covers_itself(rule in arbitrary_rule()) {
            prop_assert!(uncovered(&[&rule], std::slice::from_ref(&rule)).is_empty());
        }
    }
}
