//! Files of one volume that stand in each other's way (follows `warningsForOverlappingVirtualPaths`).

use std::fmt;

use crate::validation::At;

/// A file in a volume; in a projected one with the source it comes from.
#[derive(Clone, PartialEq, Eq)]
struct File<'a> {
    path: &'a str,
    source: String,
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.path)?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

impl File<'_> {
    /// Whether both are the same file, or one is a folder of the other's path.
    fn collides(&self, other: &File) -> bool {
        let inside = |path: &str, folder: &str| {
            path.strip_prefix(folder).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        inside(self.path, other.path) || inside(other.path, self.path)
    }
}

pub fn overlapping(volume: &At) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = volume.get("name").text();
    for (field, what, named) in [
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", "secretName"),
        ("downwardAPI", "DownwardAPI", ""),
    ] {
        let source = volume.get(field);
        let files = items(&source, String::new());
        let what = describe(what, source.get(named).text(), !named.is_empty());
        warnings.extend(collisions(files).map(|both| overlap(name, &what, &both)));
    }
    let mut files = Vec::new();
    for source in volume.at(&["projected", "sources"]).items() {
        if source.entries().all(|(_, kind)| !kind.is_set()) {
            warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
        }
        files.extend(projected(&source));
    }
    warnings.extend(collisions(files).map(|both| overlap(name, "Projected", &both)));
    warnings
}

fn overlap(volume: &str, what: &str, both: &str) -> String {
    format!("volume {volume:?} ({what}): overlapping paths: {both}")
}

fn describe(what: &str, name: &str, is_named: bool) -> String {
    if is_named { format!("{what} {name:?}") } else { what.to_owned() }
}

/// Each file with each one before it that it collides with.
fn collisions(files: Vec<File>) -> impl Iterator<Item = String> {
    let files: Vec<File> = files.into_iter().filter(|file| !file.path.is_empty()).collect();
    let mut found = Vec::new();
    for (position, file) in files.iter().enumerate() {
        let before = files[..position].iter().filter(|earlier| earlier.collides(file));
        found.extend(before.map(|earlier| format!("{file} with {earlier}")));
    }
    found.into_iter()
}

fn items<'a>(source: &At<'a>, from: String) -> Vec<File<'a>> {
    source.get("items").items().map(|item| file(&item.get("path"), from.clone())).collect()
}

fn file<'a>(path: &At<'a>, source: String) -> File<'a> {
    File { path: path.text().trim_end_matches('/'), source }
}

fn projected<'a>(source: &At<'a>) -> Vec<File<'a>> {
    for (field, what) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        if let Some(at) = source.field(field).filter(|at| at.get("items").is_set()) {
            return items(&at, describe(what, at.get("name").text(), true));
        }
    }
    if let Some(at) = source.field("downwardAPI").filter(|at| at.get("items").is_set()) {
        return items(&at, "DownwardAPI".to_owned());
    }
    if let Some(token) = source.field("serviceAccountToken") {
        return vec![file(&token.get("path"), "ServiceAccountToken".to_owned())];
    }
    if let Some(bundle) = source.field("clusterTrustBundle") {
        let named = bundle.field("name").unwrap_or_else(|| bundle.get("signerName"));
        return vec![file(&bundle.get("path"), describe("ClusterTrustBundle", named.text(), true))];
    }
    let certificate = source.get("podCertificate");
    [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")]
        .into_iter()
        .map(|(field, part)| file(&certificate.get(field), format!("PodCertificate {part}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{Value, json};

    fn check(source: Value, expect: &[&str]) {
        let mut volume = source;
        volume["name"] = "v".into();
        assert_eq!(overlapping(&At::root(&volume)), expect);
    }

    #[test]
    fn files_that_hide_each_other_are_pointed_out() {
        let paths = |paths: &[&str]| paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>();
        check(json!({"configMap": {"name": "m", "items": paths(&["a", "ab", "b/a"])}}), &[]);
        check(
            json!({"configMap": {"name": "m", "items": paths(&["a", "a/b/"])}}),
            &["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a\""],
        );
        check(
            json!({"downwardAPI": {"items": paths(&["a", "a"])}}),
            &["volume \"v\" (DownwardAPI): overlapping paths: \"a\" with \"a\""],
        );
        check(
            json!({"projected": {"sources": [{}, {"secret": {"name": "s", "items": paths(&["t"])}},
                {"serviceAccountToken": {"path": "t"}}]}}),
            &[
                "volume \"v\" (Projected) has no sources provided",
                "volume \"v\" (Projected): overlapping paths: \"t\" (ServiceAccountToken) with \"t\" (Secret \"s\")",
            ],
        );
    }
}
