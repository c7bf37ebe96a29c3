//! One kept-alive HTTP/1.1 connection to the API server, and the watches that run over one.

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Target;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The longest line of a watch; an object is 1.5 MiB at most upstream.
const WATCH_LINE_BYTES_MAX: usize = 8 << 20;

/// How much of an answer is repeated in an error message.
const ERROR_BODY_CHARS_MAX: usize = 500;

#[derive(Debug)]
pub struct Connection {
    target: Target,
    accept: &'static str,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Connection> {
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .with_context(|| format!("cannot connect to {}:{}", target.host, target.port))?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(target.tls.clone()).connect(target.name.clone(), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection lost: {error}");
            }
        });
        Ok(Connection { target: target.clone(), accept: JSON, sender })
    }

    /// The same connection, asking for answers of another media type than JSON.
    pub fn accepting(mut self, accept: &'static str) -> Connection {
        self.accept = accept;
        self
    }

    pub async fn get(&mut self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.get_bytes(path).await?)?)
    }

    /// The body as it comes, so that the client's decoding is no part of what is measured.
    pub async fn get_bytes(&mut self, path: &str) -> Result<Bytes> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.request(Method::POST, path, body).await
    }

    pub async fn put(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.request(Method::PUT, path, body).await
    }

    /// A JSON merge patch.
    pub async fn patch(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.request(Method::PATCH, path, body).await
    }

    pub async fn delete(&mut self, path: &str) -> Result<Bytes> {
        self.request(Method::DELETE, path, Bytes::new()).await
    }

    /// Whether there is something at `path`.
    pub async fn exists(&mut self, path: &str) -> Result<bool> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::NOT_FOUND => Ok(false),
            _ => succeed(status, path, body).map(|_| true),
        }
    }

    /// Gives the connection over to a watch.
    pub async fn watch(mut self, path: &str) -> Result<Watch> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK {
            return Ok(Watch { _connection: self, body, buffer: BytesMut::new(), searched: 0 });
        }
        let body = body.collect().await?.to_bytes();
        bail!("{path} is no watch: {status}: {}", excerpt(&body))
    }

    /// Whether another request can be sent.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request of the caller's making; who we are is added where it does not say so itself.
    pub async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let Target { host, port, token, .. } = &self.target;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(format!("{host}:{port}"))?);
        if let Some(token) = token.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION)) {
            headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    async fn request(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        succeed(status, path, body)
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let content = if method == Method::PATCH { MERGE_PATCH } else { JSON };
        let request = Request::builder().method(method).uri(path).header(ACCEPT, self.accept);
        self.exchange(request.header(CONTENT_TYPE, content).body(Full::new(body))?).await
    }
}

fn succeed(status: StatusCode, path: &str, body: Bytes) -> Result<Bytes> {
    if status.is_success() {
        return Ok(body);
    }
    bail!("{path}: {status}: {}", excerpt(&body))
}

fn excerpt(body: &Bytes) -> String {
    String::from_utf8_lossy(body).chars().take(ERROR_BODY_CHARS_MAX).collect()
}

/// A running watch, line by line.
#[derive(Debug)]
pub struct Watch {
    /// The connection lives as long as its sender.
    _connection: Connection,
    body: Incoming,
    buffer: BytesMut,
    /// So far the buffer holds no end of a line.
    searched: usize,
}

impl Watch {
    /// The next line as it came.
    pub async fn line(&mut self) -> Result<Bytes> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > WATCH_LINE_BYTES_MAX {
                bail!("the watch sent a line of more than {WATCH_LINE_BYTES_MAX} bytes");
            }
            let frame = self.body.frame().await.context("the server ended the watch")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// The next event: its type and its object. An ERROR event is an error.
    pub async fn event(&mut self) -> Result<(String, Value)> {
        let mut event: Value = serde_json::from_slice(&self.line().await?)?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let object = event["object"].take();
        if kind == "ERROR" {
            bail!("the watch failed: {object}");
        }
        Ok((kind, object))
    }
}
