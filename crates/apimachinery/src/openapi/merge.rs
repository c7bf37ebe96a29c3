//! What another server's version 2 document says of a group version, and how it joins this server's document: paths
//! that are there already are left out, and a definition that means something else here takes another name.
//! Follows kube-openapi's `FilterSpecByPaths` and `MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use crate::{Map, Value, json};

use super::path;
use crate::gvk::GroupVersion;

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const REFERENCE: &str = "$ref";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// The paths of one group version, and the definitions that they refer to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    paths: Map,
    definitions: Map,
}

impl Foreign {
    /// Shared parameters are put where they are referred to, so that they need no names here.
    pub fn of(document: &Value, group_version: &GroupVersion) -> Foreign {
        let prefix = format!("/{}/", path(group_version));
        let mut paths = object(&document["paths"]).clone();
        paths.retain(|path, _| path.starts_with(&prefix));
        let parameters = object(&document["parameters"]);
        paths.values_mut().for_each(|item| inline_parameters(item, parameters));
        Foreign { paths, definitions: object(&document["definitions"]).clone() }.trimmed()
    }

    /// Only with the definitions that a path leads to.
    fn trimmed(mut self) -> Foreign {
        let mut used = BTreeSet::new();
        let mut found: Vec<String> = self.paths.values().flat_map(references).collect();
        while let Some(name) = found.pop() {
            if let Some(definition) = self.definitions.get(&name)
                && used.insert(name)
            {
                found.extend(references(definition));
            }
        }
        self.definitions.retain(|name, _| used.contains(name.as_str()));
        self
    }
}

/// All that others add to a document.
#[derive(Debug, Default)]
pub struct Merged {
    pub paths: BTreeMap<String, Value>,
    /// Those of the document's own too that are for kinds of others as well.
    pub definitions: BTreeMap<String, Value>,
}

impl Merged {
    /// Adds what `foreign` says beside what is here already: the own paths and definitions, and those merged before.
    pub fn add(
        &mut self,
        foreign: &Foreign,
        is_own_path: impl Fn(&str) -> bool,
        own: impl Fn(&str) -> Option<Value>,
    ) {
        let mut foreign = foreign.clone();
        foreign.paths.retain(|path, _| !is_own_path(path) && !self.paths.contains_key(path.as_str()));
        let mut foreign = foreign.trimmed();
        let names = self.renamed(&foreign.definitions, &own);
        let values = foreign.paths.values_mut().chain(foreign.definitions.values_mut());
        values.for_each(|value| rename(value, &names));
        self.paths.extend(foreign.paths.into_iter().map(|(path, item)| (path.into(), item)));
        for (name, definition) in foreign.definitions {
            let name = names.get(name.as_str()).cloned().unwrap_or_else(|| name.into());
            let known = self.definitions.remove(&name).or_else(|| own(&name));
            let merged = match known {
                Some(known) => with_kinds(known, &definition),
                None => definition,
            };
            self.definitions.insert(name, merged);
        }
    }

    /// The names of definitions whose own names mean something else.
    fn renamed(&self, definitions: &Map, own: impl Fn(&str) -> Option<Value>) -> HashMap<String, String> {
        let mut names: HashMap<String, String> = HashMap::new();
        let known = |name: &str| own(name).or_else(|| self.definitions.get(name).cloned());
        for (name, definition) in definitions {
            let fits = |candidate: &str| match known(candidate) {
                Some(known) => is_same(&known, definition),
                None => candidate == name || !definitions.contains_key(candidate),
            };
            let candidates =
                std::iter::once(name.to_string()).chain((2..).map(|n: u32| format!("{name}_v{n}")));
            let chosen = candidates.into_iter().find(|candidate| fits(candidate));
            if let Some(chosen) = chosen.filter(|chosen| chosen != name) {
                names.insert(name.to_string(), chosen);
            }
        }
        names
    }
}

/// Whether two definitions describe the same, whichever kinds they are for.
fn is_same(one: &Value, other: &Value) -> bool {
    let without_kinds = |value: &Value| {
        let mut members = object(value).clone();
        members.remove(KINDS);
        members
    };
    without_kinds(one) == without_kinds(other)
}

/// A definition is for the kinds of all that have it.
fn with_kinds(mut known: Value, other: &Value) -> Value {
    if let (Some(members), Some(more)) = (known.as_object_mut(), other[KINDS].as_array())
        && let Some(kinds) = members.entry(KINDS).or_insert_with(|| json!([])).as_array_mut()
    {
        let new: Vec<Value> = more.iter().filter(|kind| !kinds.contains(kind)).cloned().collect();
        kinds.extend(new);
    }
    known
}

fn object(value: &Value) -> &Map {
    static NONE: LazyLock<Map> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

/// The names of the definitions that a part of a document refers to.
fn references(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(members) => rest.extend(members.values()),
            Value::Array(items) => rest.extend(items),
            _ => {}
        }
        let name = value.get(REFERENCE).and_then(Value::as_str).and_then(|to| to.strip_prefix(DEFINITIONS));
        out.extend(name.map(str::to_owned));
    }
    out
}

fn rename(value: &mut Value, names: &HashMap<String, String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get_mut(REFERENCE)
                && let Some(name) = to.strip_prefix(DEFINITIONS).and_then(|name| names.get(name))
            {
                *to = format!("{DEFINITIONS}{name}").into();
            }
            members.values_mut().for_each(|member| rename(member, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

/// In a path and in its operations.
fn inline_parameters(item: &mut Value, shared: &Map) {
    let Some(members) = item.as_object_mut() else { return };
    for (key, value) in members {
        match value {
            Value::Array(parameters) if key == "parameters" => {
                for parameter in parameters {
                    let to = parameter[REFERENCE].as_str().and_then(|to| to.strip_prefix(PARAMETERS));
                    if let Some(meant) = to.and_then(|name| shared.get(name)) {
                        *parameter = meant.clone();
                    }
                }
            }
            Value::Object(_) if key != "responses" => inline_parameters(value, shared),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("{DEFINITIONS}{name}")})
    }

    fn document(group: &str, meta: &Value) -> Value {
        let list = json!({"get": {"responses": {"200": {"schema": reference("Flunder")}},
            "parameters": [{"$ref": "#/parameters/limit"}]}});
        json!({
            "paths": {(format!("/apis/{group}/v1/flunders")): list, "/apis/other/v1/x": {"get": {"schema": reference("Other")}}},
            "parameters": {"limit": {"name": "limit", "in": "query"}},
            "definitions": {
                "Flunder": {"properties": {"metadata": reference("Meta"), "self": reference("Flunder")}, (KINDS): [{"group": group}]},
                "Meta": meta, "Other": {},
            },
        })
    }

    fn foreign(group: &str, meta: &Value) -> Foreign {
        Foreign::of(&document(group, meta), &GroupVersion::new(group, "v1"))
    }

    #[test]
    fn only_what_a_group_version_needs_is_kept() {
        let foreign = foreign("wardle", &json!({"type": "object"}));
        assert_eq!(foreign.paths.keys().collect::<Vec<_>>(), ["/apis/wardle/v1/flunders"]);
        assert_eq!(foreign.definitions.keys().collect::<Vec<_>>(), ["Flunder", "Meta"]);
        let parameters = &foreign.paths["/apis/wardle/v1/flunders"]["get"]["parameters"];
        assert_eq!(*parameters, json!([{"name": "limit", "in": "query"}]));
    }

    #[test]
    fn a_definition_that_means_something_else_takes_another_name() {
        let mut merged = Merged::default();
        let own = |name: &str| (name == "Meta").then(|| json!({"type": "string"}));
        merged.add(&foreign("wardle", &json!({"type": "object"})), |_| false, own);
        assert_eq!(merged.definitions.keys().collect::<Vec<_>>(), ["Flunder", "Meta_v2"]);
        assert_eq!(merged.definitions["Flunder"]["properties"]["metadata"], reference("Meta_v2"));
    }

    #[test]
    fn a_definition_that_means_the_same_is_for_the_kinds_of_both() {
        let mut merged = Merged::default();
        for group in ["wardle", "other"] {
            merged.add(&foreign(group, &json!({"type": "object"})), |_| false, |_| None);
        }
        assert_eq!(merged.definitions.keys().collect::<Vec<_>>(), ["Flunder", "Meta", "Other"]);
        assert_eq!(merged.definitions["Flunder"][KINDS], json!([{"group": "wardle"}, {"group": "other"}]));
    }

    #[test]
    fn paths_that_are_here_already_are_left_out_with_all_they_need() {
        let mut merged = Merged::default();
        merged.add(&foreign("wardle", &json!({})), |path| path.contains("flunders"), |_| None);
        assert!(merged.paths.is_empty() && merged.definitions.is_empty());
    }

    fn any_document() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["A", "B", "$ref", "parameters", "/apis/g/v1/x", KINDS]);
        let text = prop::sample::select(vec!["#/definitions/A", "#/definitions/B", "#/parameters/A", "x"]);
        let leaf = prop_oneof![text.prop_map(Value::from), any::<bool>().prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(name.clone(), inner, 0..4).prop_map(|members| {
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_another_server_says_harms_nobody(
            paths in any_document(), definitions in any_document(), parameters in any_document(),
        ) {
            let document = json!({"paths": paths, "definitions": definitions, "parameters": parameters});
            let foreign = Foreign::of(&document, &GroupVersion::new("g", "v1"));
            let mut merged = Merged::default();
            merged.add(&foreign, |_| false, |name| (name == "A").then(|| json!({"type": "string"})));
            let paths = merged.paths.len();
            merged.add(&foreign, |_| false, |_| None);
            prop_assert_eq!(merged.paths.len(), paths, "what is there is not added again");
        }
    }
}
