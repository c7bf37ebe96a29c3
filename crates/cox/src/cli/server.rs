//! Flags of the API server alone: audit and who may identify how. Names are upstream's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apiserver::audit::log::{LogConfig, LogFile};
use apiserver::audit::policy::Policy;
use apiserver::audit::sink::{Backend, Backends, BatchConfig, Format, Mode};
use apiserver::encryption::Encryption;
use auth::tokenfile::TokenFile;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use client::config::RestConfig;
use client::transport::Https;

use super::access::duration;

#[derive(Args, Clone)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Legacy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditMode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl AuditMode {
    fn with(self, batch: BatchConfig) -> Mode {
        match self {
            AuditMode::Batch => Mode::Batch(batch),
            AuditMode::Blocking => Mode::Blocking,
            AuditMode::BlockingStrict => Mode::BlockingStrict,
        }
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

#[derive(Args, Clone)]
pub struct AuditArgs {
    /// Which requests are told of, and how much: a file of kind Policy, audit.k8s.io/v1
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are written, a line each; `-` is standard output
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Days that older audit logs are kept; 0 keeps them
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u32,
    /// How many older audit logs are kept; 0 keeps all
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which a new audit log is begun
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// How a line of the audit log reads
    #[arg(long, value_enum, default_value = "json")]
    pub audit_log_format: LogFormat,
    /// Whether requests wait for their events to be written
    #[arg(long, value_enum, default_value = "blocking")]
    pub audit_log_mode: AuditMode,
    /// In batch mode, how many events may wait to be written; more are dropped
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
    pub audit_log_batch_buffer_size: usize,
    /// In batch mode, how many events are written together at most
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: usize,
    /// In batch mode, how long an event waits for others
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub audit_log_batch_max_wait: Duration,
    /// Where else audit events are sent: a kubeconfig that names an HTTPS server
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait for their events to be sent
    #[arg(long, value_enum, default_value = "batch")]
    pub audit_webhook_mode: AuditMode,
    /// In batch mode, how many events may wait to be sent; more are dropped
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
    pub audit_webhook_batch_buffer_size: usize,
    /// In batch mode, how many events are sent together at most
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// In batch mode, how long an event waits for others
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub audit_webhook_batch_max_wait: Duration,
    /// How long after a failure a batch is sent again
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub audit_webhook_initial_backoff: Duration,
}

/// What is told, and where it goes.
pub type Auditing = (Policy, Backends);

impl AuditArgs {
    /// The policy and where events go; none without either.
    pub fn auditing(&self) -> anyhow::Result<Option<Auditing>> {
        let Some(policy) = &self.audit_policy_file else {
            if self.audit_log_path.is_some() || self.audit_webhook_config_file.is_some() {
                tracing::warn!("No audit policy file provided, no events will be recorded");
            }
            return Ok(None);
        };
        let policy = Policy::load(policy).context("loading audit policy file")?;
        let backends: Vec<_> = [self.log()?, self.webhook()?].into_iter().flatten().collect();
        if backends.is_empty() {
            tracing::warn!("no audit back end is configured: no events will be recorded");
        }
        Ok(Some((policy, backends)))
    }

    fn log(&self) -> anyhow::Result<Option<(Backend, Mode)>> {
        let Some(path) = &self.audit_log_path else { return Ok(None) };
        let config = LogConfig {
            path: path.clone(),
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_size_megabytes: self.audit_log_maxsize,
        };
        let file = LogFile::open(config)
            .with_context(|| format!("ensureLogFile: cannot open {}", path.display()))?;
        let format = match self.audit_log_format {
            LogFormat::Json => Format::Json,
            LogFormat::Legacy => Format::Legacy,
        };
        let batch = BatchConfig {
            buffer_size: self.audit_log_batch_buffer_size,
            max_size: self.audit_log_batch_max_size,
            max_wait: self.audit_log_batch_max_wait,
        };
        Ok(Some((Backend::log(file, format), self.audit_log_mode.with(batch))))
    }

    fn webhook(&self) -> anyhow::Result<Option<(Backend, Mode)>> {
        let Some(path) = &self.audit_webhook_config_file else { return Ok(None) };
        let config = RestConfig::from_kubeconfig(path)
            .with_context(|| format!("initializing audit webhook: {}", path.display()))?;
        let server: http::Uri = config.server.parse().context("the audit webhook's server is no URL")?;
        let transport: Arc<dyn client::Transport> = Https::new(&config)?;
        let path = server.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let initial_backoff = self.audit_webhook_initial_backoff;
        let batch = BatchConfig {
            buffer_size: self.audit_webhook_batch_buffer_size,
            max_size: self.audit_webhook_batch_max_size,
            max_wait: self.audit_webhook_batch_max_wait,
        };
        let backend = Backend::Webhook { transport, path, initial_backoff };
        Ok(Some((backend, self.audit_webhook_mode.with(batch))))
    }
}
