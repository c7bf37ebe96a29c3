//! `cargo xtask tidy`: the rules that neither compiler nor tests know.

mod edges;
mod manifests;
mod modules;
mod text;
mod tools;

use anyhow::bail;

use crate::workspace::Workspace;

/// Everything, the compiler's lints included.
pub fn all(workspace: &Workspace) -> anyhow::Result<()> {
    tools::formatting(workspace)?;
    without_compiler(workspace)?;
    tools::licences(workspace)?;
    tools::lints(workspace)
}

/// The rules that need only be read; a test of this crate runs them too.
pub fn without_compiler(workspace: &Workspace) -> anyhow::Result<()> {
    let mut findings = edges::check(workspace);
    findings.extend(manifests::check(workspace)?);
    findings.extend(modules::check(workspace)?);
    findings.extend(text::check(workspace)?);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let workspace = Workspace::find().expect("this is a workspace");
        if let Err(findings) = without_compiler(&workspace) {
            panic!("{findings}");
        }
    }
}
