//! All roles and bindings, indexed by whom they are for. It follows the stored objects one change at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::meta::{LabelSelector, StringMap};
use apimachinery::{Map, Value};
use serde::Deserialize;

use super::rule::{PolicyRule, Word};
use crate::attributes::{Attributes, Decision};
use crate::user::{UserInfo, service_account_user};

/// Roles that select roles that select roles: deeper than this nobody nests them.
const AGGREGATION_DEPTH_MAX: usize = 8;

/// Namespace and name; the namespace of a cluster-wide object is empty.
type Key = (Word, Word);

/// The rules that users have. Changed by the stored objects, read by every request.
#[derive(Default)]
pub struct RbacIndex {
    words: HashSet<Word>,
    roles: HashMap<Key, Role>,
    bindings: BTreeMap<Key, Binding>,
    /// The bindings of a user (a service account by its user name) or of a group.
    by_user: HashMap<Word, Vec<Key>>,
    by_group: HashMap<Word, Vec<Key>>,
}

#[derive(Default)]
struct Role {
    labels: StringMap,
    rules: Arc<[PolicyRule]>,
    /// For an aggregated ClusterRole: its rules are those of all ClusterRoles that any of these selects.
    aggregates: Option<Vec<Selector>>,
}

struct Binding {
    role_kind: &'static str,
    role: Word,
    subjects: Vec<Subject>,
}

/// Whom a binding is for.
struct Subject {
    /// The user or group it is looked up by.
    name: Word,
    is_group: bool,
    /// As upstream describes it in a decision's reason: `Group "system:masters"`.
    shown: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RoleView {
    metadata: MetaView,
    rules: Option<Vec<PolicyRule>>,
    aggregation_rule: Option<AggregationView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AggregationView {
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetaView {
    name: String,
    namespace: String,
    labels: StringMap,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingView {
    metadata: MetaView,
    role_ref: RefView,
    subjects: Option<Vec<RefView>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RefView {
    kind: String,
    name: String,
    namespace: String,
}

/// A rule, and the binding through which the user has it.
struct Held<'a> {
    binding: (&'a Key, &'a Binding),
    subject: &'a Subject,
    rules: &'a [PolicyRule],
}

impl RbacIndex {
    /// Takes in a Role, ClusterRole, RoleBinding or ClusterRoleBinding, new or changed; other kinds are not its concern.
    pub fn apply(&mut self, object: &Value) {
        match object["kind"].as_str() {
            Some("Role" | "ClusterRole") => self.apply_role(object),
            Some("RoleBinding" | "ClusterRoleBinding") => self.apply_binding(object),
            _ => {}
        }
    }

    /// Forgets a deleted object.
    pub fn remove(&mut self, object: &Value) {
        let meta = MetaView::deserialize(&object["metadata"]).unwrap_or_default();
        let key = (self.word(&meta.namespace), self.word(&meta.name));
        match object["kind"].as_str() {
            Some("Role") => drop(self.roles.remove(&key)),
            Some("ClusterRole") => {
                self.roles.remove(&key);
                self.aggregate();
            }
            Some("RoleBinding" | "ClusterRoleBinding") => self.remove_binding(&key),
            _ => {}
        }
    }

    fn word(&mut self, text: &str) -> Word {
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Word = text.into();
        self.words.insert(word.clone());
        word
    }

    fn apply_role(&mut self, object: &Value) {
        let Ok(view) = RoleView::deserialize(object) else {
            tracing::warn!(role = %object["metadata"]["name"], "a stored role does not decode and grants nothing");
            return self.remove(object);
        };
        let mut rules = view.rules.unwrap_or_default();
        for rule in &mut rules {
            rule.each_list(|words| words.iter_mut().for_each(|word| *word = self.word(word)));
        }
        let selectors = |rule: AggregationView| {
            rule.cluster_role_selectors.iter().filter_map(|s| Selector::try_from(s).ok()).collect()
        };
        let aggregates = view.aggregation_rule.map(selectors);
        let key = (self.word(&view.metadata.namespace), self.word(&view.metadata.name));
        let is_cluster_role = key.0.is_empty();
        self.roles.insert(key, Role { labels: view.metadata.labels, rules: rules.into(), aggregates });
        if is_cluster_role {
            self.aggregate();
        }
    }

    /// Gives every aggregated ClusterRole the rules of those it selects, until nothing changes any more.
    fn aggregate(&mut self) {
        for _ in 0..AGGREGATION_DEPTH_MAX {
            let mut changes = Vec::new();
            for (key, role) in &self.roles {
                if let Some(selectors) = &role.aggregates {
                    let rules = self.selected_rules(key, selectors);
                    if *rules != *role.rules {
                        changes.push((key.clone(), rules));
                    }
                }
            }
            if changes.is_empty() {
                return;
            }
            for (key, rules) in changes {
                self.roles.entry(key).and_modify(|role| role.rules = rules.into());
            }
        }
    }

    /// The rules of all ClusterRoles selected, in the order of their names, each once.
    fn selected_rules(&self, but: &Key, selectors: &[Selector]) -> Vec<PolicyRule> {
        let selected = |role: &Role| selectors.iter().any(|selector| selector.matches(&role.labels));
        let mut roles: Vec<(&Key, &Role)> = self
            .roles
            .iter()
            .filter(|(key, role)| key.0.is_empty() && *key != but && selected(role))
            .collect();
        roles.sort_by_key(|(key, _)| &key.1);
        let mut rules: Vec<PolicyRule> = Vec::new();
        for rule in roles.iter().flat_map(|(_, role)| role.rules.iter()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        rules
    }

    /// What an aggregated ClusterRole's `rules` field should hold; none for other roles.
    pub fn aggregated_rules(&self, cluster_role: &str) -> Option<Vec<PolicyRule>> {
        let role = self.roles.get(&(Word::from(""), Word::from(cluster_role)))?;
        role.aggregates.as_ref().map(|_| role.rules.to_vec())
    }

    /// The names of all aggregated ClusterRoles.
    pub fn aggregated_roles(&self) -> Vec<Word> {
        let aggregated = self.roles.iter().filter(|(_, role)| role.aggregates.is_some());
        aggregated.map(|(key, _)| key.1.clone()).collect()
    }

    fn apply_binding(&mut self, object: &Value) {
        let Ok(view) = BindingView::deserialize(object) else {
            tracing::warn!(binding = %object["metadata"]["name"], "a stored binding does not decode and grants nothing");
            return self.remove(object);
        };
        let key = (self.word(&view.metadata.namespace), self.word(&view.metadata.name));
        self.remove_binding(&key);
        let subjects: Vec<Subject> =
            view.subjects.unwrap_or_default().iter().filter_map(|s| self.subject(s, &key.0)).collect();
        for subject in &subjects {
            let by = if subject.is_group { &mut self.by_group } else { &mut self.by_user };
            let keys = by.entry(subject.name.clone()).or_default();
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
        }
        let role_kind = if view.role_ref.kind == "Role" { "Role" } else { "ClusterRole" };
        let role = self.word(&view.role_ref.name);
        self.bindings.insert(key, Binding { role_kind, role, subjects });
    }

    fn subject(&mut self, view: &RefView, binding_namespace: &str) -> Option<Subject> {
        let (kind, name) = (view.kind.as_str(), view.name.as_str());
        let shown = format!("{kind} {name:?}");
        match kind {
            "User" => Some(Subject { name: self.word(name), is_group: false, shown }),
            "Group" => Some(Subject { name: self.word(name), is_group: true, shown }),
            "ServiceAccount" => {
                let namespace = if view.namespace.is_empty() { binding_namespace } else { &view.namespace };
                let shown = format!("{kind} {:?}", format!("{name}/{namespace}"));
                let user = service_account_user(namespace, name);
                Some(Subject { name: self.word(&user), is_group: false, shown })
            }
            _ => None,
        }
    }

    fn remove_binding(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in &binding.subjects {
            let by = if subject.is_group { &mut self.by_group } else { &mut self.by_user };
            if let Some(keys) = by.get_mut(&subject.name) {
                keys.retain(|k| k != key);
                if keys.is_empty() {
                    by.remove(&subject.name);
                }
            }
        }
    }

    /// All rules the user has in the namespace, cluster-wide ones first; an empty namespace means cluster-wide only.
    fn held<'a, 'u>(
        &'a self,
        user: &'u UserInfo,
        namespace: &'u str,
    ) -> impl Iterator<Item = Held<'a>> + use<'a, 'u> {
        let of_user = self.by_user.get(user.name.as_str()).into_iter().flatten().map(|key| (key, false));
        let groups = user.groups.iter().filter_map(|group| self.by_group.get(group.as_str()));
        let all = of_user.chain(groups.flatten().map(|key| (key, true)));
        let applies = move |key: &Key| key.0.is_empty() || (*key.0 == *namespace && !namespace.is_empty());
        all.filter(move |(key, _)| applies(key)).filter_map(move |(key, by_group)| {
            let binding = self.bindings.get(key)?;
            let is_user = |s: &&Subject| {
                s.is_group == by_group && if by_group { user.is_in(&s.name) } else { *s.name == *user.name }
            };
            let subject = binding.subjects.iter().find(is_user)?;
            let role_namespace = if binding.role_kind == "Role" { key.0.clone() } else { Word::from("") };
            let role = self.roles.get(&(role_namespace, binding.role.clone()))?;
            Some(Held { binding: (key, binding), subject, rules: &role.rules })
        })
    }

    pub fn authorize(&self, request: &Attributes<'_>) -> Decision {
        for held in self.held(request.user, request.namespace) {
            if held.rules.iter().any(|rule| rule.allows(request)) {
                return Decision::Allow(held.reason());
            }
        }
        Decision::NoOpinion(String::new())
    }

    /// All rules the user has in the namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<&PolicyRule> {
        self.held(user, namespace).flat_map(|held| held.rules).collect()
    }

    /// The rules of the role that a binding refers to; none when there is no such role.
    pub fn rules_of_role(&self, kind: &str, namespace: &str, name: &str) -> Option<&[PolicyRule]> {
        let namespace = if kind == "Role" { namespace } else { "" };
        self.roles.get(&(Word::from(namespace), Word::from(name))).map(|role| &*role.rules)
    }

    /// `status` of a SelfSubjectRulesReview.
    pub fn rules_review(&self, user: &UserInfo, namespace: &str) -> Value {
        let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
        for rule in self.rules_for(user, namespace) {
            let list = |words: &[Word]| Value::from(words.iter().map(|w| &**w).collect::<Vec<&str>>());
            let put = |fields: &[(&str, &[Word])], to: &mut Vec<Value>| {
                let set = fields.iter().filter(|(_, words)| !words.is_empty());
                to.push(Value::Object(set.map(|(k, words)| ((*k).to_owned(), list(words))).collect::<Map>()));
            };
            if !rule.resources.is_empty() {
                let fields: [(&str, &[Word]); 4] = [
                    ("verbs", &rule.verbs),
                    ("apiGroups", &rule.api_groups),
                    ("resources", &rule.resources),
                    ("resourceNames", &rule.resource_names),
                ];
                put(&fields, &mut resource_rules);
            }
            if !rule.non_resource_urls.is_empty() {
                let fields: [(&str, &[Word]); 2] =
                    [("verbs", &rule.verbs), ("nonResourceURLs", &rule.non_resource_urls)];
                put(&fields, &mut non_resource_rules);
            }
        }
        apimachinery::json!({
            "resourceRules": resource_rules, "nonResourceRules": non_resource_rules, "incomplete": false
        })
    }
}

impl Held<'_> {
    /// Which binding allowed it, as upstream words it.
    fn reason(&self) -> String {
        let ((namespace, name), binding) = self.binding;
        let (kind, named) = if namespace.is_empty() {
            ("ClusterRoleBinding", name.to_string())
        } else {
            ("RoleBinding", format!("{name}/{namespace}"))
        };
        let Binding { role_kind, role, .. } = binding;
        format!("RBAC: allowed by {kind} {named:?} of {role_kind} {role:?} to {}", self.subject.shown)
    }
}

#[cfg(test)]
mod tests;
