//! Real `kubectl` on a test's machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::machine::{COMMAND_SECONDS, Machine};
use crate::process::{self, Background, Finished};

/// What kubectl 1.30 to 1.33 says when an answer comes before it knows the stream; the answer is lost
/// (kubernetes/kubernetes#131189).
const LOST: &str = "Unknown stream id";

/// How often a command is run that loses its answer.
const ATTEMPTS: usize = 4;

/// How long a wait may take that `kubectl` itself does.
pub const WAIT: &str = "--timeout=90s";

/// The same for what this side waits for.
const FIELD_WAIT: Duration = Duration::from_secs(90);

#[derive(Clone)]
pub struct Kubectl {
    machine: Arc<Machine>,
    program: PathBuf,
    home: PathBuf,
    /// Outside the home folder, which must be as it was when the cluster is gone.
    cache: PathBuf,
    namespace: String,
    context: Option<String>,
    /// More environment, such as `KUBE_EDITOR`.
    environment: Vec<(String, String)>,
    /// What one command gets.
    deadline: Duration,
}

/// What a patient one gets.
const PATIENT_DEADLINE: Duration = Duration::from_secs(600);

impl Kubectl {
    pub fn new(machine: Arc<Machine>, program: PathBuf, home: PathBuf, cache: PathBuf) -> Self {
        Kubectl {
            machine,
            program,
            home,
            cache,
            namespace: "default".to_owned(),
            context: None,
            environment: Vec::new(),
            deadline: Duration::from_secs(COMMAND_SECONDS),
        }
    }

    pub fn in_namespace(&self, namespace: &str) -> Self {
        Kubectl { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// Another context of the kubeconfig than its current one.
    pub fn in_context(&self, context: &str) -> Self {
        Kubectl { context: Some(context.to_owned()), ..self.clone() }
    }

    /// For what may take long.
    pub fn patient(&self) -> Self {
        Kubectl { deadline: PATIENT_DEADLINE, ..self.clone() }
    }

    /// Another version of the program.
    pub fn of(&self, program: &Path) -> Self {
        Kubectl { program: program.to_owned(), ..self.clone() }
    }

    pub fn with_env(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.environment.push((name.to_owned(), value.to_owned()));
        other
    }

    /// With another kubeconfig than the user's.
    pub fn with_kubeconfig(&self, path: &str) -> Self {
        self.with_env("KUBECONFIG", path)
    }

    /// The address of the API server in the kubeconfig.
    pub fn server(&self) -> anyhow::Result<String> {
        self.run(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])
    }

    /// Whatever comes of it. What a kubectl says it has lost is asked for again.
    pub fn attempt(&self, args: &[&str], input: &str) -> anyhow::Result<Finished> {
        for _ in 1..ATTEMPTS {
            let finished = self.attempt_once(args, input)?;
            if !finished.stderr.contains(LOST) {
                return Ok(finished);
            }
        }
        self.attempt_once(args, input)
    }

    fn attempt_once(&self, args: &[&str], input: &str) -> anyhow::Result<Finished> {
        let command = self.machine.command(&self.program, self.deadline);
        process::run(self.prepare(command, args), self.shown(args), input)
    }

    /// What it prints; an error if it fails.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.attempt(args, "")?.success()
    }

    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.attempt(&["apply", "-f", "-"], manifest)?.success()
    }

    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[args, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// One value of one object, as text.
    pub fn field(&self, object: &str, path: &str) -> anyhow::Result<String> {
        self.run(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Waits until the description of an object tells `word`, and gives it: events come a moment after what they tell of.
    pub fn described(&self, object: &str, word: &str) -> anyhow::Result<String> {
        let mut description = String::new();
        let told = self.machine.until(&format!("the description of {object} tells {word:?}"), || {
            description = self.run(&["describe", object])?;
            Ok(description.contains(word))
        });
        told.with_context(|| description.clone())?;
        Ok(description)
    }

    /// Waits until a deployment is rolled out.
    pub fn rolled_out(&self, deployment: &str) -> anyhow::Result<()> {
        self.run(&["rollout", "status", &format!("deployment/{deployment}"), WAIT]).map(drop)
    }

    /// Waits for `condition=Ready` or `delete`, as `kubectl wait --for` does.
    pub fn wait(&self, object: &str, what: &str) -> anyhow::Result<()> {
        self.run(&["wait", object, &format!("--for={what}"), WAIT]).map(drop)
    }

    /// Waits until a field has a value. By a watch: older versions of `kubectl wait` know conditions only.
    /// The watch follows a list of one: of an object asked for by name, kubectl takes the first event for what
    /// it printed already, and so loses a change between the two requests.
    pub fn wait_for_field(&self, object: &str, path: &str, value: &str) -> anyhow::Result<()> {
        let (resource, name) = object.split_once('/').context("an object is given as resource/name")?;
        self.wait_for_field_of_any(resource, &format!("--field-selector=metadata.name={name}"), path, value)
    }

    /// The same of one of those that `selector` selects, whichever they are by then.
    pub fn wait_for_field_of_any(
        &self,
        resource: &str,
        selector: &str,
        path: &str,
        value: &str,
    ) -> anyhow::Result<()> {
        // The brackets tell an end from a beginning: `[1]` is not in `[10]`.
        let output = format!("jsonpath=[{{{path}}}]{{\"\\n\"}}");
        let mut watch = self.background(&["get", resource, selector, "--watch", "--output", &output])?;
        watch.line_with(&format!("[{value}]"), self.deadline.max(FIELD_WAIT)).map(drop)
    }

    pub fn background(&self, args: &[&str]) -> anyhow::Result<Background> {
        let command = self.machine.background_command(&self.program);
        Background::start(self.prepare(command, args), self.shown(args))
    }

    /// Runs with a terminal, on which `input` is typed.
    pub fn on_terminal(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        let line =
            format!("'{}' --namespace {} {}", self.program.display(), self.namespace, quoted.join(" "));
        let deadline = Duration::from_secs(COMMAND_SECONDS);
        let mut command = self.machine.command(Path::new("script"), deadline);
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.env("HOME", &self.home).env_remove("KUBECONFIG").env("TERM", "xterm");
        process::run(command, line, input)?.success()
    }

    fn prepare(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(["--namespace", &self.namespace]).arg("--cache-dir").arg(&self.cache);
        command.args(self.context.iter().flat_map(|context| ["--context", context])).args(args);
        command.env("HOME", &self.home).env_remove("KUBECONFIG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn shown(&self, args: &[&str]) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} --namespace {} {}", self.namespace, args.join(" "))
    }
}
