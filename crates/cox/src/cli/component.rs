//! Flags about what a component of its own process serves: where, by which certificate, and to whom. Names are upstream's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apiserver::component::{AlwaysAllowed, Authentication, Authorization, Trust};
use auth::RequestHeader;
use clap::Args;
use client::Transport;
use client::certificate::Replaceable;
use client::config::RestConfig;
use client::transport::Https;
use cluster::pki::{self, Usage};
use jiff::Timestamp;

use super::access::{RequestHeaderArgs, duration, read};

#[derive(Args, Clone)]
#[command(next_help_heading = "Health and figures")]
pub struct SecureServingArgs {
    /// Address on which health and figures are told over HTTPS
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    pub bind_address: IpAddr,
    /// Port for that, none with 0; 10259 of the scheduler and 10257 of the controllers if not given
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// Certificate for that, PEM; one is made that nobody vouches for if not given
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authority of the certificates of users, PEM; that of the cluster if not given
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub request_header: RequestHeaderArgs,
    /// How to reach the API server that knows tokens and authorities; without it tokens count for nothing
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Believe nobody beyond those whom flags name
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub authentication_skip_lookup: bool,
    /// How long its word on a token counts
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// How to reach the API server that decides who may ask; without it only administrators may
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// How long its leave counts
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long its refusal counts
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Features to turn on or off, by upstream's names: `A=true,B=false`
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Tell of the program below /debug/pprof, and let be set there how much is logged
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub profiling: bool,
    /// Paths that anybody may ask for
    #[arg(long, value_delimiter = ',', default_value = "/healthz,/readyz,/livez")]
    pub authorization_always_allow_paths: Vec<String>,
}

impl SecureServingArgs {
    /// Where it is served, if it is.
    pub fn address(&self, default_port: u16) -> Option<SocketAddr> {
        let port = self.secure_port.unwrap_or(default_port);
        (port != 0).then(|| SocketAddr::new(self.bind_address, port))
    }

    /// Whom it believes from the beginning; where it says nothing, the API server is believed, if it is asked.
    pub fn trust(&self) -> anyhow::Result<Trust> {
        let client_ca = self.client_ca_file.as_deref().map(read).transpose()?;
        let mut front_proxies = self.request_header.front_proxies()?;
        if let Some(proxies) = &mut front_proxies {
            with_usual_headers(&mut proxies.headers);
        }
        Ok(Trust { client_ca, front_proxies })
    }

    /// The way to the API server that knows users, if there is one.
    pub fn reviewer(&self) -> anyhow::Result<Option<Arc<dyn Transport>>> {
        way(self.authentication_kubeconfig.as_deref())
    }

    pub fn authentication(
        &self,
        component: &str,
        trust: &Trust,
        reviewer: Option<Arc<dyn Transport>>,
    ) -> anyhow::Result<Authentication> {
        let certificate = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => {
                Replaceable::new(read(certificate)?.as_bytes(), read(key)?.as_bytes())
                    .with_context(|| format!("cannot serve with {}", certificate.display()))?
            }
            _ => self.self_signed(component)?,
        };
        let cache_ttl = self.authentication_token_webhook_cache_ttl;
        Authentication::new(certificate, trust, reviewer, cache_ttl)
            .context("the authorities of clients cannot be used")
    }

    /// For the host's name, and the address that is listened on or this machine's own.
    fn self_signed(&self, component: &str) -> anyhow::Result<Arc<Replaceable>> {
        let mut names = vec![cluster::address::hostname()];
        let mut addresses = Vec::new();
        if self.bind_address.is_unspecified() {
            names.push("localhost".to_owned());
            addresses.push(Ipv4Addr::LOCALHOST.into());
        } else {
            addresses.push(self.bind_address);
        }
        let made = pki::self_signed(component, &Usage::Server { names, addresses }, Timestamp::now())?;
        Ok(Replaceable::new(made.certificate.as_bytes(), made.key.as_bytes())?)
    }

    pub fn authorization(&self) -> anyhow::Result<Authorization> {
        let paths = self.authorization_always_allow_paths.iter().map(String::as_str);
        let allowed = AlwaysAllowed::parse(paths).context("--authorization-always-allow-paths")?;
        Ok(Authorization::new(
            allowed,
            way(self.authorization_kubeconfig.as_deref())?,
            self.authorization_webhook_cache_authorized_ttl,
            self.authorization_webhook_cache_unauthorized_ttl,
        ))
    }
}

fn way(kubeconfig: Option<&Path>) -> anyhow::Result<Option<Arc<dyn Transport>>> {
    let Some(path) = kubeconfig else { return Ok(None) };
    Ok(Some(Https::new(&RestConfig::from_kubeconfig(path)?)?))
}

/// The headers that count where flags name none (upstream: NewDelegatingAuthenticationOptions).
fn with_usual_headers(headers: &mut RequestHeader) {
    let lists = [
        (&mut headers.username_headers, "x-remote-user"),
        (&mut headers.group_headers, "x-remote-group"),
        (&mut headers.extra_headers_prefix, "x-remote-extra-"),
    ];
    for (list, usual) in lists {
        if list.is_empty() {
            list.push(usual.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serving: SecureServingArgs,
    }

    fn check(flags: &[&str], expect: Option<&str>) {
        let command = Command::try_parse_from([&["cox"][..], flags].concat()).expect("flags");
        let address = command.serving.address(10259).map(|address| address.to_string());
        assert_eq!(address.as_deref(), expect, "{flags:?}");
    }

    #[test]
    fn it_is_served_everywhere_unless_flags_say_otherwise() {
        check(&[], Some("0.0.0.0:10259"));
        check(&["--bind-address", "127.0.0.1"], Some("127.0.0.1:10259"));
        check(&["--bind-address", "::1", "--secure-port", "8443"], Some("[::1]:8443"));
        check(&["--secure-port", "0"], None);
    }

    #[test]
    fn headers_that_are_not_named_are_the_usual_ones() {
        let mut headers =
            RequestHeader { username_headers: vec!["X-User".to_owned()], ..RequestHeader::default() };
        with_usual_headers(&mut headers);
        assert_eq!(headers.username_headers, ["X-User"]);
        assert_eq!(headers.group_headers, ["x-remote-group"]);
        assert_eq!(headers.extra_headers_prefix, ["x-remote-extra-"]);
        assert!(headers.uid_headers.is_empty());
    }
}
