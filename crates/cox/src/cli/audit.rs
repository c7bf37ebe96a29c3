//! Flags that say which requests are told of, and where. Names are upstream's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use apiserver::audit::log::{LogConfig, LogFile};
use apiserver::audit::policy::Policy;
use apiserver::audit::sink::{Backend, Backends, BatchConfig, Destination, Format, Mode};
use apiserver::audit::throttle::ThrottleConfig;
use apiserver::audit::truncate::Truncation;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use client::config::RestConfig;
use client::transport::Https;

use super::access::duration;

/// Upstream's: webhooks behind common proxies take no more.
const EVENT_BYTES: u64 = 100 * 1024;
const BATCH_BYTES: u64 = 10 * 1024 * 1024;

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

/// No throttle where it is off.
fn throttle(on: bool, per_second: f32, burst: u32) -> anyhow::Result<Option<ThrottleConfig>> {
    let positive = per_second > 0.0 && burst > 0;
    ensure!(
        !on || positive,
        "a throttle of audit batches needs a positive qps and burst; turn it off without"
    );
    Ok(on.then_some(ThrottleConfig { per_second, burst }))
}

/// Events that come together are told one by one, so that what they may have together is only checked.
fn truncation(on: bool, max_event_size: u64, together: u64) -> anyhow::Result<Option<Truncation>> {
    ensure!(
        max_event_size <= together,
        "the maximum size of an audit event ({max_event_size}) must not exceed that of a batch ({together})"
    );
    Ok(on.then_some(Truncation { max_event_size }))
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Audit")]
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
    /// In batch mode, whether batches are written only so often
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub audit_log_batch_throttle_enable: bool,
    /// How many batches a second
    #[arg(long, default_value_t = 0.0)]
    pub audit_log_batch_throttle_qps: f32,
    /// After how many at once
    #[arg(long, default_value_t = 0)]
    pub audit_log_batch_throttle_burst: u32,
    /// Whether events that are too large are written without their objects, or not at all
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub audit_log_truncate_enabled: bool,
    /// How many bytes an event may have then
    #[arg(long, default_value_t = EVENT_BYTES)]
    pub audit_log_truncate_max_event_size: u64,
    /// How many bytes events that come together may have then
    #[arg(long, default_value_t = BATCH_BYTES)]
    pub audit_log_truncate_max_batch_size: u64,
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
    /// In batch mode, whether batches are sent only so often
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub audit_webhook_batch_throttle_enable: bool,
    /// How many batches a second
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f32,
    /// After how many at once
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Whether events that are too large are sent without their objects, or not at all
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub audit_webhook_truncate_enabled: bool,
    /// How many bytes an event may have then
    #[arg(long, default_value_t = EVENT_BYTES)]
    pub audit_webhook_truncate_max_event_size: u64,
    /// How many bytes events that come together may have then
    #[arg(long, default_value_t = BATCH_BYTES)]
    pub audit_webhook_truncate_max_batch_size: u64,
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

    fn log(&self) -> anyhow::Result<Option<Destination>> {
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
            throttle: throttle(
                self.audit_log_batch_throttle_enable,
                self.audit_log_batch_throttle_qps,
                self.audit_log_batch_throttle_burst,
            )?,
        };
        let (event, together) =
            (self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size);
        let truncation = truncation(self.audit_log_truncate_enabled, event, together)?;
        let (backend, mode) = (Backend::log(file, format), self.audit_log_mode.with(batch));
        Ok(Some(Destination { backend, mode, truncation }))
    }

    fn webhook(&self) -> anyhow::Result<Option<Destination>> {
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
            throttle: throttle(
                self.audit_webhook_batch_throttle_enable,
                self.audit_webhook_batch_throttle_qps,
                self.audit_webhook_batch_throttle_burst,
            )?,
        };
        let (event, together) =
            (self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size);
        let truncation = truncation(self.audit_webhook_truncate_enabled, event, together)?;
        let backend = Backend::Webhook { transport, path, initial_backoff };
        Ok(Some(Destination { backend, mode: self.audit_webhook_mode.with(batch), truncation }))
    }
}
