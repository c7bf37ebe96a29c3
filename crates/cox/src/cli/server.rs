//! Flags of the API server alone: who may identify how, what is encrypted, and what requests may take. Names are
//! upstream's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apiserver::enablement::Enablement;
use apiserver::encryption::Encryption;
use apiserver::features::Features;
use auth::tokenfile::TokenFile;
use clap::Args;

use super::access::duration;

#[derive(Args, Clone)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationArgs {
    /// Let requests without credentials in as system:anonymous
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_auth: bool,
    /// Bearer tokens: lines of token, user, uid and, quoted, groups
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
}

impl AuthenticationArgs {
    pub fn tokens(&self) -> anyhow::Result<TokenFile> {
        let Some(path) = &self.token_auth_file else { return Ok(TokenFile::default()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(TokenFile::parse(&text, &path.display().to_string())?)
    }
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Store")]
pub struct EncryptionArgs {
    /// Which resources are encrypted on disk, and how: a file of kind EncryptionConfiguration
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Read that file again whenever it changes, and write what is on disk anew
    #[arg(long, requires = "encryption_provider_config")]
    pub encryption_provider_config_automatic_reload: bool,
}

impl EncryptionArgs {
    pub fn encryption(&self) -> anyhow::Result<Option<Arc<Encryption>>> {
        Ok(self.encryption_provider_config.as_deref().map(Encryption::load).transpose()?)
    }
}

#[derive(Args, Clone)]
#[command(next_help_heading = "API server")]
pub struct FlowControlArgs {
    /// How many requests are worked on at once, those that write not counted
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: u32,
    /// How many requests that write are worked on at once; priority levels share the sum of both
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: u32,
}

impl FlowControlArgs {
    pub fn requests_in_flight_max(&self) -> anyhow::Result<u32> {
        let sum = self.max_requests_inflight.checked_add(self.max_mutating_requests_inflight);
        sum.filter(|sum| *sum > 0).context(
            "--max-requests-inflight and --max-mutating-requests-inflight together must leave room for a request",
        )
    }
}

/// What the API server serves, and for how long.
#[derive(Args, Clone)]
#[command(next_help_heading = "API server")]
pub struct ServingArgs {
    /// Features to turn on or off, by upstream's names: `A=true,B=false`
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Built-in APIs to serve or not: `batch/v1=false`, `apps/v1/daemonsets=false`, `api/all=false`
    #[arg(long, value_delimiter = ',', value_name = "KEY=BOOL")]
    pub runtime_config: Vec<String>,
    /// Tell of the program below /debug/pprof, and let be set there how much is logged
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub profiling: bool,
    /// What a request that does not last may take; a client may ask for less
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub request_timeout: Duration,
}

impl ServingArgs {
    pub fn enablement(&self) -> anyhow::Result<Enablement> {
        Ok(Enablement::parse(self.runtime_config.iter().map(String::as_str))?)
    }

    pub fn features(&self) -> anyhow::Result<Features> {
        features(&self.feature_gates).context("--feature-gates")
    }
}

/// What pairs such as `A=true` turn on and off, and a warning of each that nothing here heeds.
pub fn features(pairs: &[String]) -> anyhow::Result<Features> {
    let features = Features::parse(pairs.iter().map(String::as_str))?;
    for name in features.without_effect() {
        tracing::warn!(feature = name, "this feature cannot be switched here; it stays as it is by default");
    }
    Ok(features)
}
