//! The table of kinds for the scripts that are played once per kind.
//!
//! ```text
//! apps/v1 deployments Deployment namespaced status scale
//! {"spec": ...}            the least a user may write, without apiVersion, kind and metadata
//! {"spec": ...}            a merge patch that the kind allows on an update; an annotation if missing
//! ```
//!
//! Blank lines separate the kinds. What follows the scope are traits, which conditions of steps ask for; `name=x` is the
//! name of the object where the kind rules it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::script::{Variables, merge};

#[derive(Clone, Debug)]
pub struct Kind {
    pub name: String,
    pub traits: BTreeSet<String>,
    pub variables: Variables,
}

pub fn parse(text: &str) -> Result<Vec<Kind>> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let blocks = lines.split(|line| line.trim().is_empty()).filter(|block| !block.is_empty());
    blocks.map(|block| kind(block).with_context(|| format!("in the kind {:?}", block[0]))).collect()
}

fn kind(block: &[&str]) -> Result<Kind> {
    let mut words = block[0].split(' ');
    let mut word = |what: &str| words.next().with_context(|| format!("no {what}"));
    let (api_version, plural, kind) = (word("apiVersion")?, word("resource")?, word("kind")?);
    let scope = word("scope")?;
    let mut traits: BTreeSet<String> = words.map(str::to_owned).collect();
    traits.insert(scope.to_owned());
    let name = traits.iter().find_map(|word| word.strip_prefix("name=")).unwrap_or("x").to_owned();
    let mut object = json!({ "apiVersion": api_version, "kind": kind,
        "metadata": { "name": name, "labels": { "app": "mirror" } } });
    merge(&mut object, body(block, 1)?.unwrap_or_else(|| json!({})));
    let change =
        body(block, 2)?.unwrap_or_else(|| json!({ "metadata": { "annotations": { "changed": "yes" } } }));
    let root = if api_version.contains('/') {
        format!("/apis/{api_version}")
    } else {
        format!("/api/{api_version}")
    };
    let namespace = format!("each-{plural}-{}", api_version.replace(['/', '.'], "-"));
    let collection = match scope {
        "namespaced" => format!("{root}/namespaces/{namespace}/{plural}"),
        "cluster" => format!("{root}/{plural}"),
        other => bail!("{other:?} is no scope"),
    };
    let variables = [
        ("apiVersion", api_version.to_owned()),
        ("kind", kind.to_owned()),
        ("plural", plural.to_owned()),
        ("name", name.clone()),
        ("namespace", namespace),
        ("root", root),
        ("item", format!("{collection}/{name}")),
        ("collection", collection),
        ("object", object.to_string()),
        ("change", change.to_string()),
    ];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Kind { name: format!("{api_version}/{plural}"), traits, variables })
}

fn body(block: &[&str], at: usize) -> Result<Option<Value>> {
    block.get(at).map(|text| serde_json::from_str(text).with_context(|| format!("{text:?}"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_the_variables_of_its_kind() {
        let kinds = parse(
            "# all\nv1 configmaps ConfigMap namespaced immutable\n{\"data\":{}}\n\ng/v1 xs X cluster name=y\n",
        );
        let [maps, xs] = &kinds.unwrap()[..] else { panic!("there are two") };
        assert_eq!(maps.variables["item"], "/api/v1/namespaces/each-configmaps-v1/configmaps/x");
        assert!(maps.traits.contains("immutable") && maps.traits.contains("namespaced"));
        assert_eq!(xs.variables["item"], "/apis/g/v1/xs/y");
        assert!(parse("v1 a A nowhere").is_err());
    }
}
