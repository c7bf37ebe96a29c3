//! Where in an expression something is wrong, told as cel-go's `common.Error` does.

use std::fmt;

/// A finding at a character of the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Counted in characters from 0.
    pub at: usize,
    pub message: String,
}

/// Why an expression does not compile: its findings, each shown with the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    source: String,
    pub issues: Vec<Issue>,
}

impl CompileError {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.at);
        CompileError { source: source.to_owned(), issues }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let (line, column, text) = locate(&self.source, issue.at);
            let message = &issue.message;
            write!(
                f,
                "ERROR: <input>:{line}:{}: {message}\n | {text}\n | {}^",
                column + 1,
                ".".repeat(column)
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// Line from 1, column from 0, and the line's text.
fn locate(source: &str, at: usize) -> (usize, usize, &str) {
    let mut left = at;
    let mut last = (1, 0, "");
    for (index, text) in source.split('\n').enumerate() {
        let length = text.chars().count();
        if left <= length {
            return (index + 1, left, text);
        }
        left -= length + 1;
        last = (index + 1, length, text);
    }
    last
}
