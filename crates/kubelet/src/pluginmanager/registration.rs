//! One plugin's way in: who it is, whether it can be spoken with, and telling it how that went (follows
//! `GenerateRegisterPluginFunc`, whose words plugins are told).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use csi::pluginregistration::registration_client::RegistrationClient;
use csi::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus};
use tonic::Status;

use super::{PluginHandler, call};

/// How long a plugin may take to say who it is.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream's `initialDurationBeforeRetry`.
const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
/// Upstream's `maxDurationBeforeRetry`.
const BACK_OFF_MAX: Duration = Duration::from_secs(122);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RegisterPlugin error -- failed to get plugin info using RPC GetInfo at socket {0}, err: {1}")]
    Info(PathBuf, Status),
    #[error("RegisterPlugin error -- no handler registered for plugin type: {kind} at socket {socket}")]
    Kind { kind: String, socket: PathBuf },
    #[error("RegisterPlugin error -- plugin validation failed with err: {0}")]
    Invalid(String),
    #[error("RegisterPlugin error -- plugin registration failed with err: {0}")]
    Refused(String),
    #[error("RegisterPlugin error -- failed to send registration status at socket {0}, err: {1}")]
    Notify(PathBuf, Status),
}

/// A plugin, and who deals with it.
pub struct Registered {
    pub handler: Arc<dyn PluginHandler>,
    pub name: String,
    pub endpoint: PathBuf,
}

/// How long to wait after each attempt that failed.
#[derive(Default)]
pub struct BackOff(Option<Duration>);

impl BackOff {
    pub fn next(&mut self) -> Duration {
        let pause = self.0.map_or(BACK_OFF_FIRST, |before| (before * 2).min(BACK_OFF_MAX));
        *self.0.insert(pause)
    }
}

/// Registers the plugin behind a socket, and tells it how that went.
pub async fn register(handlers: &[Arc<dyn PluginHandler>], socket: &Path) -> Result<Registered, Error> {
    let ask = async |channel| RegistrationClient::new(channel).get_info(InfoRequest {}).await;
    let info = call(socket, TIMEOUT, ask).await;
    let info = info.map_err(|status| Error::Info(socket.to_owned(), status))?;
    let outcome = introduce(handlers, socket, &info).await;
    let error = outcome.as_ref().err().map(Error::to_string).unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: outcome.is_ok(), error };
    let notify = async |channel| RegistrationClient::new(channel).notify_registration_status(status).await;
    let notified = call(socket, TIMEOUT, notify).await;
    let registered = outcome?;
    if let Err(status) = notified {
        registered.handler.deregister(&registered.name, &registered.endpoint).await;
        return Err(Error::Notify(socket.to_owned(), status));
    }
    tracing::info!(kind = info.r#type, name = info.name, "plugin registered");
    Ok(registered)
}

/// Hands the plugin to who deals with its kind.
async fn introduce(
    handlers: &[Arc<dyn PluginHandler>],
    socket: &Path,
    info: &PluginInfo,
) -> Result<Registered, Error> {
    let handler = handlers
        .iter()
        .find(|handler| handler.kind() == info.r#type)
        .ok_or_else(|| Error::Kind { kind: info.r#type.clone(), socket: socket.to_owned() })?;
    let endpoint = info.endpoint.trim_start_matches("unix://");
    let endpoint = if endpoint.is_empty() { socket } else { Path::new(endpoint) };
    handler.validate(info, endpoint).map_err(Error::Invalid)?;
    handler.register(info, endpoint).await.map_err(Error::Refused)?;
    Ok(Registered { handler: handler.clone(), name: info.name.clone(), endpoint: endpoint.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_minutes() {
        let mut back_off = BackOff::default();
        let seconds: Vec<f32> = (0..10).map(|_| back_off.next().as_secs_f32()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 122.0, 122.0]);
    }
}
