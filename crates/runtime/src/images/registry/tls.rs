//! TLS as a registry's host is configured: its own authority besides the machine's, a client certificate, or no
//! verification at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio_rustls::TlsConnector;

/// Where distributions keep the certificates they trust.
const CERTIFICATE_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// `tls` of a host in `registries.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// Believed besides the machine's own authorities.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

/// Reads the files anew each time: who replaces a certificate need not restart anything.
pub fn connector(files: &TlsFiles) -> Result<TlsConnector, String> {
    let builder = if files.insecure_skip_verify {
        ::tls::client_of_anybody()
    } else {
        ::tls::client().with_root_certificates(roots(files.ca_file.as_deref())?)
    };
    let config = match (&files.cert_file, &files.key_file) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| format!("client certificate {}: {error}", certificate.display()))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("cert_file and key_file are given together or not at all".to_owned()),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(own: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = CERTIFICATE_FILES.iter().map(Path::new).find(|file| file.exists()) {
        roots.add_parsable_certificates(certificates(file)?);
    }
    if let Some(file) = own {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(unreadable(file))
}

fn unreadable(file: &Path) -> impl Fn(rustls_pki_types::pem::Error) -> String {
    move |error| format!("read {}: {error}", file.display())
}
