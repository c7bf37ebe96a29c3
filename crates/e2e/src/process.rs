//! Programs that a test starts: run to their end within a deadline, or kept in the background and listened to.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    pub shown: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// What it printed, if it succeeded.
    pub fn success(self) -> anyhow::Result<String> {
        if self.status.success() { Ok(self.stdout) } else { bail!("{self}") }
    }

    /// What it printed and said on the side, if it succeeded.
    pub fn success_with_stderr(self) -> anyhow::Result<String> {
        let side = self.stderr.clone();
        Ok(self.success()? + &side)
    }

    /// What it complained about, if it failed.
    pub fn failure(self) -> anyhow::Result<String> {
        if self.status.success() { bail!("this should have failed: {self}") } else { Ok(self.stderr) }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs a program with `input`; the program itself keeps the deadline.
pub fn run(mut command: Command, shown: String, input: &str) -> anyhow::Result<Finished> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut stdin = child.stdin.take().context("it was piped")?;
    let input = input.to_owned();
    // A program may end without reading all of it; that is its right.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let output = child.wait_with_output()?;
    writer.join().expect("writing does not panic");
    Ok(Finished {
        shown,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A program that runs until it is dropped.
pub struct Background {
    shown: String,
    child: Child,
    lines: Receiver<String>,
    /// All lines so far, for the message of a failure.
    seen: Vec<String>,
}

impl Background {
    pub fn start(mut command: Command, shown: String) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let (sender, lines) = channel();
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().context("it was piped")?);
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().context("it was piped")?);
        for pipe in [stdout, stderr] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Background { shown, child, lines, seen: Vec::new() })
    }

    /// Waits for a line of its output that contains `text`.
    pub fn line_with(&mut self, text: &str, deadline: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + deadline;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(why) => {
                    let ended = matches!(why, RecvTimeoutError::Disconnected);
                    let why = if ended { "ended without" } else { "did not print in time" };
                    bail!("`{}` {why} {text:?}; it printed:\n{}", self.shown, self.seen.join("\n"));
                }
            }
        }
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("`{}` cannot be ended: {error}", self.shown);
        }
    }
}
