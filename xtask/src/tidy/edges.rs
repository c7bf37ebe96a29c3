//! Which crate may use which: the architecture, as a table.

use std::collections::BTreeSet;

use cargo_metadata::DependencyKind;

use crate::workspace::Workspace;

/// A crate and what it may use; what those may use is allowed with it.
struct Row {
    name: &'static str,
    uses: &'static [&'static str],
}

const fn row(name: &'static str, uses: &'static [&'static str]) -> Row {
    Row { name, uses }
}

const TABLE: &[Row] = &[
    row("apimachinery", &[]),
    row("api", &["apimachinery", "apiextensions"]),
    row("apiextensions", &["apimachinery", "cel"]),
    row("cel", &["apimachinery"]),
    row("etcd", &[]),
    row("store", &["apimachinery", "etcd"]),
    row("auth", &["api"]),
    row("admission", &["api", "auth"]),
    // `client` for its transport, which the in-process way into the server is an instance of.
    row("apiserver", &["apiextensions", "store", "auth", "admission", "api", "client"]),
    row("tls", &[]),
    row("client", &["api", "tls"]),
    row("controllers", &["client"]),
    row("scheduler", &["client"]),
    row("runtime", &["tls"]),
    row("network", &["client"]),
    row("ingress", &["client", "network"]),
    row("csi", &[]),
    row("csi-hostpath", &["client", "csi"]),
    row("dra", &[]),
    row("dra-example", &["client", "csi", "dra"]),
    row("kubelet", &["client", "csi", "dra", "runtime"]),
    row("metricsserver", &["client"]),
    row("cluster", &["client", "store", "auth"]),
    row(
        "cox",
        &[
            "apiserver",
            "cluster",
            "controllers",
            "ingress",
            "kubelet",
            "metricsserver",
            "network",
            "runtime",
            "scheduler",
            "store",
        ],
    ),
    row("bench", &["tls"]),
    row("e2e", &[]),
    row("xtask", &[]),
];

pub fn check(workspace: &Workspace) -> Vec<String> {
    let members: BTreeSet<&str> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let name = package.name.as_str();
        if !TABLE.iter().any(|row| row.name == name) {
            findings.push(format!("crate {name} is not in the table of crates"));
            continue;
        }
        let allowed = reachable(name);
        // A test may look at whatever it needs; what is shipped may not.
        let shipped = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for used in shipped.map(|dependency| dependency.name.as_str()).filter(|used| members.contains(used)) {
            if !allowed.contains(used) {
                findings.push(format!("crate {name} must not use {used}"));
            }
        }
    }
    findings
}

/// Everything a crate may use, directly or through others.
fn reachable(name: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        let uses = TABLE.iter().find(|row| row.name == next).map_or(&[][..], |row| row.uses);
        for used in uses {
            if found.insert(*used) {
                open.push((*used).to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_only_crates_it_has_and_goes_no_way_round() {
        for row in TABLE {
            for used in row.uses {
                assert!(TABLE.iter().any(|other| other.name == *used), "{} uses {used}", row.name);
            }
            assert!(!reachable(row.name).contains(row.name), "{} reaches itself", row.name);
        }
    }

    #[test]
    fn those_who_decide_cannot_name_the_store() {
        for name in ["controllers", "scheduler", "kubelet", "network"] {
            assert!(!reachable(name).contains("store"), "{name}");
        }
    }
}
