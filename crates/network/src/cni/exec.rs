//! Running one plugin: parameters in the environment, configuration on standard input, result or
//! error on standard output.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apimachinery::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a plugin may take; DHCP and cloud plugins wait for others.
const PATIENCE: Duration = Duration::from_secs(120);

/// What running a plugin can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("CNI plugin {plugin:?} is in none of {folders:?}")]
    NotFound { plugin: String, folders: Vec<PathBuf> },
    #[error("run CNI plugin {plugin}: {source}")]
    Run { plugin: String, source: std::io::Error },
    #[error("CNI plugin {plugin} did not end within {PATIENCE:?}")]
    Slow { plugin: String },
    /// In the plugin's own words.
    #[error("plugin type={plugin:?} failed ({command}): {message}")]
    Failed { plugin: String, command: &'static str, message: String },
}

/// What every plugin of a call is told.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// `ADD` or `DEL`.
    pub command: &'static str,
    pub container_id: &'a str,
    /// Absent when the namespace is gone.
    pub netns: Option<&'a Path>,
    pub interface: &'a str,
    /// `KEY=VALUE` pairs, separated by `;`.
    pub args: &'a str,
    pub folders: &'a [PathBuf],
}

impl Call<'_> {
    /// What the plugin printed; null if nothing.
    pub async fn run(&self, plugin: &str, input: &Value) -> Result<Value, Error> {
        let program = self.folders.iter().map(|folder| folder.join(plugin)).find(|path| path.is_file());
        let program = program
            .ok_or_else(|| Error::NotFound { plugin: plugin.into(), folders: self.folders.to_vec() })?;
        let ran = tokio::time::timeout(PATIENCE, self.spawn(&program, input));
        let failed = |source| Error::Run { plugin: plugin.into(), source };
        let output = ran.await.map_err(|_| Error::Slow { plugin: plugin.into() })?.map_err(failed)?;
        let printed = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        if output.status.success() {
            return Ok(printed);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let message = match (printed["msg"].as_str(), printed["details"].as_str()) {
            (Some(message), Some(details)) if !details.is_empty() => format!("{message}; {details}"),
            (Some(message), _) => message.to_owned(),
            (None, _) => format!("{}: {}", output.status, said.trim()),
        };
        Err(Error::Failed { plugin: plugin.into(), command: self.command, message })
    }

    async fn spawn(&self, program: &Path, input: &Value) -> std::io::Result<std::process::Output> {
        let folders = self.folders.iter().map(|folder| folder.display().to_string());
        let mut child = Command::new(program)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", self.netns.unwrap_or_else(|| Path::new("")))
            .env("CNI_IFNAME", self.interface)
            .env("CNI_ARGS", self.args)
            .env("CNI_PATH", folders.collect::<Vec<_>>().join(":"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let text = input.to_string();
        let write = async move {
            // A plugin may end without reading: its own answer says more than a broken pipe.
            if let Err(error) = stdin.write_all(text.as_bytes()).await {
                tracing::debug!(%error, "CNI plugin did not read its configuration");
            }
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        output
    }
}
