//! Fields that an apply would take from other managers, and the 409 that says so (upstream: NewConflictError).

use std::collections::BTreeMap;

use super::element::Path;
use super::entry::{Entry, Operation};
use super::set::Set;
use crate::status::{Status, StatusCause, StatusDetails};

/// One field that is another manager's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// As messages describe it: `"kubectl-client-side-apply" using apps/v1`.
    manager: String,
    pub path: Path,
}

/// All conflicts with one manager.
pub(super) fn conflicts_with(entry: &Entry, fields: &Set) -> Vec<Conflict> {
    let manager = describe(entry);
    fields.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path }).collect()
}

fn describe(entry: &Entry) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text = format!("{text} with subresource {:?}", entry.subresource);
    }
    if entry.operation == Operation::Update {
        text = format!("{text} using {}", entry.api_version);
    }
    text
}

/// The 409 for these conflicts.
pub(super) fn conflict_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts.iter().map(|conflict| StatusCause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.to_string(),
    });
    let details = StatusDetails { causes: causes.collect(), ..Default::default() };
    Status::failure(409, "Conflict", message(conflicts)).with_details(details)
}

fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut by_manager: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(&conflict.path);
    }
    let mut lines = Vec::new();
    for (manager, paths) in by_manager {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(paths.iter().map(|path| format!("- {path}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
