//! What every Rust file must and must not contain.

use crate::workspace::Workspace;

/// Longer files hold more than one idea.
const LINES_MAX: usize = 900;

/// Words of unfinished work. Each is written in two parts, so that this file does not contain them.
const BANNED: [&str; 6] = [
    concat!("to", "do!("),
    concat!("un", "implemented!("),
    concat!("db", "g!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO:"),
    concat!("for ", "now,"),
];

pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in workspace.sources()? {
        let text = std::fs::read_to_string(&path)?;
        let shown = workspace.shown(&path);
        findings.extend(of_file(&text).into_iter().map(|finding| format!("{shown}{finding}")));
    }
    Ok(findings)
}

fn of_file(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if !first.starts_with("//!") {
        findings.push(": does not open with `//!`, which says what the module is for".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!(": {lines} lines are more than {LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        for word in BANNED.iter().filter(|word| line.contains(*word)) {
            findings.push(format!(":{}: contains {word:?}", number + 1));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_purpose_too_long_or_unfinished_is_named() {
        assert_eq!(of_file("//! What it is for.\n\nfn done() {}\n"), [""; 0]);
        assert_eq!(of_file("\nfn main() {}\n").len(), 1);
        assert_eq!(of_file(&format!("//! Doc.\n{}", "\n".repeat(LINES_MAX))).len(), 1);
        assert_eq!(of_file(&format!("//! Doc.\nfn open() {{ {}) }}\n", BANNED[0])).len(), 1);
    }
}
