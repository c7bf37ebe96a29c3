//! Tells the user what is going on while it takes its time.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Instant;

/// Lines for a person on standard error; a detached child says the same to its parent over a pipe.
pub struct Progress {
    started: Instant,
    colour: bool,
    /// The parent's end, when this is a detached child.
    parent: Option<Mutex<std::fs::File>>,
}

/// What a detached child tells its parent, a line each.
pub const STEP: &str = "step ";
pub const WAIT: &str = "wait ";
pub const NOTE: &str = "note ";
pub const READY: &str = "ready";
pub const FAILED: &str = "failed ";

impl Progress {
    pub fn on_terminal() -> Self {
        Progress { started: Instant::now(), colour: std::io::stderr().is_terminal(), parent: None }
    }

    pub fn to_parent(pipe: std::fs::File) -> Self {
        Progress { started: Instant::now(), colour: false, parent: Some(Mutex::new(pipe)) }
    }

    /// Something was achieved.
    pub fn step(&self, text: &str) {
        match &self.parent {
            Some(_) => self.tell_parent(&format!("{STEP}{text}")),
            None => self.show(text),
        }
    }

    /// Something is not achieved yet, or why it is not.
    pub fn waiting(&self, text: &str) {
        match &self.parent {
            Some(_) => self.tell_parent(&format!("{WAIT}{}", Self::escape(text))),
            None => self.show_waiting(text),
        }
    }

    /// Several lines as they are, for a person.
    pub fn note(&self, text: &str) {
        match &self.parent {
            Some(_) => self.tell_parent(&format!("{NOTE}{}", Self::escape(text))),
            None => eprintln!("{text}"),
        }
    }

    pub fn show(&self, text: &str) {
        self.print(if self.colour { "\x1b[32m✓\x1b[0m" } else { "*" }, text);
    }

    pub fn show_waiting(&self, text: &str) {
        self.print(if self.colour { "\x1b[33m…\x1b[0m" } else { "…" }, text);
    }

    fn print(&self, mark: &str, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.colour {
            eprintln!("  {mark} {text} \x1b[2m{seconds:.1}s\x1b[0m");
        } else {
            eprintln!("  {mark} {text} ({seconds:.1}s)");
        }
    }

    /// Everything works; the parent may leave.
    pub fn ready(&self) {
        self.tell_parent(READY);
    }

    /// Everything is over before it worked.
    pub fn failed(&self, why: &str) {
        self.tell_parent(&format!("{FAILED}{}", Self::escape(why)));
    }

    fn tell_parent(&self, line: &str) {
        let Some(parent) = &self.parent else { return };
        let mut pipe = parent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if writeln!(pipe, "{line}").is_err() {
            tracing::debug!("nobody listens to the progress any more");
        }
    }

    /// Several lines as one, to go through the pipe.
    fn escape(text: &str) -> String {
        text.replace('\n', "\u{1}")
    }

    /// The text as it was before it went through the pipe.
    pub fn unescape(text: &str) -> String {
        text.replace('\u{1}', "\n")
    }
}
