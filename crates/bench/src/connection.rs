//! One kept-alive connection to the API server, and the watches that run over one.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Target;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// HTTP/2 as TLS negotiates it (RFC 9113, section 3.2).
const HTTP2: &[u8] = b"h2";

/// The longest line of a watch; an object is 1.5 MiB at most upstream.
const WATCH_LINE_BYTES_MAX: usize = 8 << 20;

/// How much of an answer is repeated in an error message.
const ERROR_BODY_CHARS_MAX: usize = 500;

/// What a server may send before we have read it, as Go's client allows (transportDefaultStreamFlow and
/// transportDefaultConnFlow of golang.org/x/net/http2).
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

#[derive(Debug)]
pub struct Connection {
    target: Target,
    accept: &'static str,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A TCP connection to the API server.
pub async fn dial(target: &Target) -> Result<TcpStream> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .with_context(|| format!("cannot connect to {}:{}", target.host, target.port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Connection> {
        Connection::http1(target, dial(target).await?).await
    }

    /// One request at a time.
    pub async fn http1(
        target: &Target,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection> {
        let stream = TlsConnector::from(target.tls.clone()).connect(target.name.clone(), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(drive(connection));
        Ok(Connection { target: target.clone(), accept: JSON, sender: Sender::Http1(sender) })
    }

    /// Many requests at a time.
    pub async fn http2(
        target: &Target,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection> {
        let connector = TlsConnector::from(target.tls.clone());
        let connector = connector.with_alpn(vec![HTTP2.to_vec()]);
        let stream = connector.connect(target.name.clone(), stream).await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(HTTP2), "the server does not speak HTTP/2");
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(drive(connection));
        Ok(Connection { target: target.clone(), accept: JSON, sender: Sender::Http2(sender) })
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
        let body = self.begin_watch(path).await?;
        Ok(Watch::new(Arc::new(self), body))
    }

    /// Gives the connection over to several watches; more than one need HTTP/2.
    pub async fn watches(mut self, path: &str, count: usize) -> Result<Vec<Watch>> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(self.begin_watch(path).await?);
        }
        let connection = Arc::new(self);
        Ok(bodies.into_iter().map(|body| Watch::new(connection.clone(), body)).collect())
    }

    async fn begin_watch(&mut self, path: &str) -> Result<Incoming> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK {
            return Ok(body);
        }
        let body = body.collect().await?.to_bytes();
        bail!("{path} is no watch: {status}: {}", excerpt(&body))
    }

    /// Whether another request can be sent.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request of the caller's making; who we are is added where it does not say so itself.
    pub async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let Target { host, port, token, .. } = &self.target;
        let authority = format!("{host}:{port}");
        let headers = request.headers_mut();
        if let Some(token) = token.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION)) {
            headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        }
        match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert(HOST, HeaderValue::try_from(authority)?);
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().context("a request needs a path")?.clone();
                let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(path);
                *request.uri_mut() = uri.build()?;
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
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

async fn drive(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        eprintln!("connection lost: {error}");
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
    _connection: Arc<Connection>,
    body: Incoming,
    buffer: BytesMut,
    /// So far the buffer holds no end of a line.
    searched: usize,
}

impl Watch {
    fn new(connection: Arc<Connection>, body: Incoming) -> Watch {
        Watch { _connection: connection, body, buffer: BytesMut::new(), searched: 0 }
    }

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
