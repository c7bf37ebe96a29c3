//! The validating webhook: an HTTPS server with a certificate of its own making, which the API server is told to believe.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::{Api, Client};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::OPERATOR;
use crate::website::Website;

/// The API server's own limit of what it sends, and some room for the review around it.
const REVIEW_BYTES_MAX: usize = 4 << 20;

/// A webhook that is ready to serve.
pub struct Webhook {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    /// What the API server believes, PEM.
    authority: String,
}

/// Binds a port that is free and makes a certificate for the address.
pub async fn listen(address: IpAddr) -> anyhow::Result<Webhook> {
    let listener = TcpListener::bind((address, 0)).await.context("the webhook cannot listen")?;
    let made = rcgen::generate_simple_self_signed([address.to_string()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(Webhook {
        address: listener.local_addr()?,
        listener,
        acceptor: TlsAcceptor::from(Arc::new(tls)),
        authority: made.cert.pem(),
    })
}

/// Tells the API server to ask before it takes a Website.
pub async fn register(client: &Client, webhook: &Webhook) -> anyhow::Result<()> {
    let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": OPERATOR},
        "webhooks": [{
            "name": "websites.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": webhook.url(), "caBundle": ByteString(webhook.authority.clone().into_bytes())},
            "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["websites"],
                       "operations": ["CREATE", "UPDATE"]}],
        }],
    }))?;
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let apply = PatchParams::apply(OPERATOR).force();
    configurations.patch(OPERATOR, &apply, &Patch::Apply(&configuration)).await?;
    Ok(())
}

impl Webhook {
    pub fn url(&self) -> String {
        format!("https://{}/validate", self.address)
    }

    /// Answers reviews until the process ends.
    pub async fn serve(self) -> anyhow::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let acceptor = self.acceptor.clone();
            tokio::spawn(async move {
                // Who does not speak TLS, or goes away, concerns nobody else.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http = hyper::server::conn::http1::Builder::new();
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
                    println!("a connection to the webhook broke off: {error}");
                }
            });
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = review(request).await.unwrap_or_else(|error| {
        let mut refused = Response::new(Full::from(error.to_string()));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        refused
    });
    Ok(answered)
}

async fn review(request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let body =
        Limited::new(request.into_body(), REVIEW_BYTES_MAX).collect().await.map_err(anyhow::Error::msg)?;
    let review: AdmissionReview<Website> = serde_json::from_slice(&body.to_bytes())?;
    let answer = serde_json::to_vec(&judge(&review.try_into()?).into_review())?;
    Ok(Response::builder().header("content-type", "application/json").body(Full::from(answer))?)
}

fn judge(request: &AdmissionRequest<Website>) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    match request.object.as_ref().and_then(|website| website.spec.fault()) {
        Some(fault) => response.deny(fault),
        None => response,
    }
}
