//! Where etcd is and how it is talked to.

use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How long a connection may take to be made (upstream: dialTimeout, for all members together).
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A connection on which nothing comes is asked for a sign of life this often. etcd refuses more than one in 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A member that gives no sign of life for this long is given up.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// URLs of members, such as `https://10.0.0.1:2379`.
    pub servers: Vec<String>,
    pub tls: Tls,
}

/// Certificates and keys, in PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whom to believe. Without it only members without TLS can be reached.
    pub authority: Option<Vec<u8>>,
    /// What the client shows: certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no etcd server is named")]
    NoServers,
    #[error("{url:?} is not the URL of an etcd server, such as https://10.0.0.1:2379")]
    Url { url: String, source: tonic::transport::Error },
    #[error("the certificates for etcd cannot be used")]
    Tls(#[source] tonic::transport::Error),
}

impl Config {
    /// How each member is reached, in the order given.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        if self.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        self.servers.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, ConfigError> {
        // Upstream takes a bare address too.
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let wrong = |source| ConfigError::Url { url: url.to_owned(), source };
        let endpoint = Endpoint::from_shared(full.clone()).map_err(wrong)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_MAX)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if full.starts_with("https://") {
            endpoint.tls_config(self.tls.client()).map_err(ConfigError::Tls)
        } else {
            Ok(endpoint)
        }
    }
}

impl Tls {
    fn client(&self) -> ClientTlsConfig {
        let mut client = ClientTlsConfig::new();
        if let Some(authority) = &self.authority {
            client = client.ca_certificate(Certificate::from_pem(authority));
        }
        if let Some((certificate, key)) = &self.identity {
            client = client.identity(Identity::from_pem(certificate, key));
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_or_a_bare_address() {
        let endpoints = |servers: &[&str]| {
            let servers = servers.iter().map(|server| (*server).to_owned()).collect();
            Config { servers, tls: Tls::default() }.endpoints()
        };
        let found = endpoints(&["127.0.0.1:2379", "http://etcd-1:2379"]).expect("two servers");
        let uris: Vec<String> = found.iter().map(|endpoint| endpoint.uri().to_string()).collect();
        assert_eq!(uris, ["http://127.0.0.1:2379/", "http://etcd-1:2379/"]);
        assert!(matches!(endpoints(&["http://"]), Err(ConfigError::Url { .. })));
        assert!(matches!(endpoints(&[]), Err(ConfigError::NoServers)));
    }
}
