//! How the end of a command is told on the error stream.

use serde_json::json;

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// The command ran and gave a code other than 0.
    ExitCode(i32),
    /// It could not be run or followed.
    Error(String),
}

/// What the client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Before v4: nothing on success, otherwise a message.
    Text,
    /// Since v4: always a metav1.Status object.
    Json,
}

impl Format {
    /// The bytes to send; none means to send nothing.
    pub(super) fn render(self, outcome: &Outcome) -> Vec<u8> {
        match self {
            Format::Text => message(outcome).into_bytes(),
            Format::Json => status(outcome).to_string().into_bytes(),
        }
    }
}

fn message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success => String::new(),
        Outcome::ExitCode(code) => format!("command terminated with non-zero exit code: exit status {code}"),
        Outcome::Error(error) => format!("Internal error occurred: {error}"),
    }
}

fn status(outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Success => json!({"metadata": {}, "status": "Success"}),
        Outcome::ExitCode(code) => json!({
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": message(outcome),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Error(error) => json!({
            "metadata": {},
            "status": "Failure",
            "reason": "InternalError",
            "message": message(outcome),
            "details": {"causes": [{"message": error}]},
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_of_the_status() {
        let status = status(&Outcome::ExitCode(3));
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    }

    #[test]
    fn old_clients_hear_nothing_of_success() {
        assert!(Format::Text.render(&Outcome::Success).is_empty());
        assert!(!Format::Json.render(&Outcome::Success).is_empty());
    }
}
