//! Flags of the API server about who is believed and who decides. Names are upstream's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use apiserver::authentication::{self, FrontProxies, webhook};
use apiserver::authorization::{Chain, Step};
use apiserver::review_client::ReviewClient;
use auth::authorizationconfiguration::{AuthorizationConfiguration, AuthorizationFlags};
use auth::jwt::Algorithm;
use auth::oidc::AuthenticationConfiguration;
use auth::oidc::config::OidcFlags;
use auth::{Anonymous, RequestHeader};
use clap::Args;

/// Who is believed beyond the cluster's own certificates and tokens.
#[derive(Args, Clone)]
#[command(next_help_heading = "Authentication")]
pub struct BelievedArgs {
    /// Other issuers of tokens, and who may come without credentials: a file of kind AuthenticationConfiguration
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Server that is asked about tokens by TokenReviews: a kubeconfig that names it
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of those TokenReviews
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authentication_token_webhook_version: String,
    /// How long its answers count
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    #[command(flatten)]
    pub request_header: RequestHeaderArgs,
}

/// One issuer of tokens, by flags.
#[derive(Args, Clone)]
pub struct OidcArgs {
    /// Issuer whose tokens are believed, an HTTPS URL
    #[arg(long, requires = "oidc_client_id", conflicts_with = "authentication_config")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that its tokens must be for
    #[arg(long, requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// Authority of the issuer's certificate, PEM; those of the system if not given
    #[arg(long, requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that names the user
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// Goes before the user's name, `-` for nothing; the issuer's URL and `#` if not given, unless the claim is `email`
    #[arg(long)]
    pub oidc_username_prefix: Option<String>,
    /// Claim that names the user's groups
    #[arg(long)]
    pub oidc_groups_claim: Option<String>,
    /// Goes before the groups' names
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// Algorithms that its tokens may be signed with
    #[arg(long, value_delimiter = ',', default_value = "RS256", value_parser = algorithm)]
    pub oidc_signing_algs: Vec<Algorithm>,
    /// Claim that tokens must have, and its value, as `key=value`
    #[arg(long, value_parser = pair)]
    pub oidc_required_claim: Vec<(String, String)>,
}

/// Proxies that speak for users, besides the one by which the cluster's extension servers are reached.
#[derive(Args, Clone)]
pub struct RequestHeaderArgs {
    /// Authority of front proxies' certificates, PEM
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Names in those certificates; any if not given
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which they name the user
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Headers in which they tell the user's uid
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers in which they name the user's groups
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// What begins the names of headers in which they tell more
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// As Go writes it, `2m0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = apimachinery::time::parse_duration(text).and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| "it is no duration such as 90s or 1h30m".to_owned())
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let known = Algorithm::ALL.map(Algorithm::name).join(", ");
    Algorithm::parse(name).ok_or_else(|| format!("it is none of {known}"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is no key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

impl BelievedArgs {
    /// What the flags say. `own_issuer` is the name under which the cluster signs its own tokens.
    pub fn config(&self, own_issuer: &str) -> anyhow::Result<authentication::Config> {
        let mut config = authentication::Config {
            request_header: self.request_header.front_proxies()?,
            webhook: self.webhook()?,
            ..authentication::Config::default()
        };
        if let Some(path) = &self.authentication_config {
            let what = || format!("authentication configuration {} cannot be used", path.display());
            let read = AuthenticationConfiguration::parse(&read(path)?).with_context(what)?;
            config.issuers = read.compile(&Algorithm::ALL, own_issuer).with_context(what)?;
            config.anonymous = read.anonymous.map(Anonymous::from);
        } else if let Some(flags) = self.oidc.flags()? {
            let flags = AuthenticationConfiguration::from(flags);
            let issuers = flags.compile(&self.oidc.oidc_signing_algs, own_issuer);
            config.issuers = issuers.context("the flags --oidc-* cannot be used")?;
        }
        Ok(config)
    }

    fn webhook(&self) -> anyhow::Result<Option<webhook::Config>> {
        let Some(path) = &self.authentication_token_webhook_config_file else { return Ok(None) };
        let client = ReviewClient::from_kubeconfig(path)
            .with_context(|| format!("authentication webhook {} cannot be used", path.display()))?;
        Ok(Some(webhook::Config {
            client,
            version: self.authentication_token_webhook_version.clone(),
            cache_ttl: self.authentication_token_webhook_cache_ttl,
        }))
    }
}

impl OidcArgs {
    fn flags(&self) -> anyhow::Result<Option<OidcFlags>> {
        let (Some(issuer_url), Some(client_id)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        Ok(Some(OidcFlags {
            issuer_url: issuer_url.clone(),
            client_id: client_id.clone(),
            certificate_authority: self.oidc_ca_file.as_deref().map(read).transpose()?.unwrap_or_default(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
        }))
    }
}

impl RequestHeaderArgs {
    pub fn front_proxies(&self) -> anyhow::Result<Option<FrontProxies>> {
        let Some(path) = &self.requestheader_client_ca_file else { return Ok(None) };
        let headers = RequestHeader {
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_headers_prefix: self.requestheader_extra_headers_prefix.clone(),
        };
        Ok(Some(FrontProxies { authority: read(path)?, headers }))
    }
}

/// Who decides what a user may do.
#[derive(Args, Clone)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationArgs {
    /// Who decides, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC", conflicts_with = "authorization_config")]
    pub authorization_mode: Vec<String>,
    /// Who decides: a file of kind AuthorizationConfiguration
    #[arg(long)]
    pub authorization_config: Option<PathBuf>,
    /// Server that is asked by SubjectAccessReviews: a kubeconfig that names it
    #[arg(long, conflicts_with = "authorization_config")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of those SubjectAccessReviews
    #[arg(long, default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    /// How long its leave counts
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long its refusal counts
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl AuthorizationArgs {
    pub fn chain(&self) -> anyhow::Result<Chain> {
        let configured = match &self.authorization_config {
            Some(path) => AuthorizationConfiguration::parse(&read(path)?)
                .and_then(|read| read.compile())
                .with_context(|| format!("authorization configuration {} cannot be used", path.display()))?,
            None => self.flags()?.compile().context("the flags --authorization-* cannot be used")?,
        };
        let steps = configured.into_iter().map(Step::try_from).collect::<Result<Vec<Step>, _>>();
        Ok(Chain::new(steps.context("an authorization webhook cannot be used")?))
    }

    fn flags(&self) -> anyhow::Result<AuthorizationConfiguration> {
        let file = self.authorization_webhook_config_file.as_deref().map(std::path::absolute).transpose()?;
        if file.is_some() && !self.authorization_mode.iter().any(|mode| mode == "Webhook") {
            bail!(
                "--authorization-webhook-config-file is given, but --authorization-mode does not name Webhook"
            );
        }
        Ok(AuthorizationConfiguration::from(AuthorizationFlags {
            modes: self.authorization_mode.clone(),
            webhook_config_file: file.map(|file| file.display().to_string()),
            webhook_version: self.authorization_webhook_version.clone(),
            authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
            unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
        }))
    }
}
