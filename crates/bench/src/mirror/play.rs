//! One server's side of a script: sends its requests, remembers what was captured, makes the answers comparable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::body::decoded;
use super::compare::{Answer, HEADERS, HEADERS_BY_PRESENCE};
use super::normalize;
use super::script::{Action, Step, Variables, expand};
use crate::connection::Connection;
use crate::kubeconfig::Target;

/// Longer than any request of a script takes.
const ANSWER_WAIT: Duration = Duration::from_secs(40);

/// A watch that has been silent for so long has said all it had to say.
const WATCH_SILENCE: Duration = Duration::from_millis(1500);

/// How long AWAIT waits for the state it names, and how often it looks.
const AWAIT_TIMEOUT: Duration = Duration::from_secs(15);
const AWAIT_EVERY: Duration = Duration::from_millis(50);

/// Shorter captured texts could stand anywhere by chance, so they are not replaced in answers.
const KNOWN_LENGTH_MIN: usize = 5;

#[derive(Debug)]
pub struct Player {
    target: Target,
    connection: Option<Connection>,
    variables: Variables,
    known: Vec<(String, String)>,
}

/// What became of a step.
#[derive(Debug)]
pub struct Outcome {
    /// The request line with the variables replaced, for people.
    pub request: String,
    /// None for a step that compares nothing.
    pub answer: Option<Answer>,
}

impl Player {
    pub fn new(target: Target) -> Player {
        let address = format!("{}:{}", target.host, target.port);
        Player {
            target,
            connection: None,
            variables: Variables::new(),
            known: vec![(address, "<server>".to_owned())],
        }
    }

    /// Forgets what was captured and begins with these variables.
    pub fn begin(&mut self, variables: Variables) {
        self.variables = variables;
        self.known.truncate(1);
    }

    pub async fn play(&mut self, step: &Step) -> Result<Outcome> {
        let path = expand(&step.path, &self.variables)?;
        let answer = match &step.action {
            Action::Request(method) => Some(self.answer(method.clone(), &path, step).await?),
            Action::Watch { events } => Some(self.watch(&path, step, *events).await?),
            Action::Await { status } => {
                self.wait_for(&path, step, *status).await?;
                None
            }
        };
        let request = match &step.action {
            Action::Request(method) => format!("{method} {path}"),
            Action::Watch { .. } => format!("WATCH {path}"),
            Action::Await { .. } => format!("AWAIT {path}"),
        };
        Ok(Outcome { request, answer })
    }

    async fn answer(&mut self, method: Method, path: &str, step: &Step) -> Result<Answer> {
        let exchange = async {
            let response = self.send(method, path, step).await?;
            let (head, body) = response.into_parts();
            anyhow::Ok((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = tokio::time::timeout(ANSWER_WAIT, exchange).await.context("no answer")??;
        let mut value = decoded(content_type(&head.headers), &body);
        self.capture(step, &value);
        normalize::value(&mut value, &self.known);
        Ok(Answer { status: head.status.as_u16(), headers: self.headers(&head.headers), body: value })
    }

    /// The events of a watch as a list. The connection serves for nothing else any more.
    async fn watch(&mut self, path: &str, step: &Step, events: usize) -> Result<Answer> {
        let response = tokio::time::timeout(ANSWER_WAIT, self.send(Method::GET, path, step)).await;
        let (head, body) = response.context("no answer")??.into_parts();
        let read = read_events(body, events).await?;
        self.connection = None;
        let lines = read.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut value = Value::Array(lines.map(|line| decoded("application/json", line)).collect());
        self.capture(step, &value);
        normalize::value(&mut value, &self.known);
        Ok(Answer { status: head.status.as_u16(), headers: self.headers(&head.headers), body: value })
    }

    async fn wait_for(&mut self, path: &str, step: &Step, status: u16) -> Result<()> {
        let deadline = Instant::now() + AWAIT_TIMEOUT;
        loop {
            let response = self.send(Method::GET, path, step).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            if head.status == status {
                self.capture(step, &decoded("application/json", &body));
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{path} is answered with {} and not with {status}", head.status);
            }
            tokio::time::sleep(AWAIT_EVERY).await;
        }
    }

    /// Over the kept connection, or a new one if the server has closed it.
    async fn send(&mut self, method: Method, path: &str, step: &Step) -> Result<http::Response<Incoming>> {
        let request = self.request(&method, path, step)?;
        if let Some(mut connection) = self.connection.take().filter(Connection::is_open)
            && let Ok(response) = connection.exchange(request.clone()).await
        {
            self.connection = Some(connection);
            return Ok(response);
        }
        let mut connection = Connection::open(&self.target).await?;
        let response = connection.exchange(request).await.with_context(|| format!("{method} {path}"))?;
        self.connection = Some(connection);
        Ok(response)
    }

    fn request(&self, method: &Method, path: &str, step: &Step) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &step.headers {
            request = request.header(name, expand(value, &self.variables)?);
        }
        let given = |name: &str| step.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        if !given("accept") {
            request = request.header("accept", "application/json");
        }
        if step.body.is_some() && !given("content-type") {
            request = request.header("content-type", "application/json");
        }
        let body = step.body.as_deref().map(|body| expand(body, &self.variables)).transpose()?;
        Ok(request.body(Full::new(Bytes::from(body.unwrap_or_default())))?)
    }

    fn capture(&mut self, step: &Step, answer: &Value) {
        for capture in &step.captures {
            let found = match answer.pointer(&capture.pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "missing".to_owned(),
            };
            let is_number = found.bytes().all(|byte| byte.is_ascii_digit());
            if found.len() >= KNOWN_LENGTH_MIN && !is_number {
                self.known.push((found.clone(), format!("<{}>", capture.variable)));
            }
            self.variables.insert(capture.variable.clone(), found);
        }
    }

    fn headers(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let values = |name: &str| {
            let texts = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            let texts: Vec<String> = texts.map(|text| normalize::text(&text, &self.known)).collect();
            (!texts.is_empty()).then(|| (name.to_owned(), texts.join(" | ")))
        };
        let present = |name: &&str| headers.get(*name).map(|_| ((*name).to_owned(), "present".to_owned()));
        HEADERS
            .iter()
            .filter_map(|name| values(name))
            .chain(HEADERS_BY_PRESENCE.iter().filter_map(present))
            .collect()
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads until so many lines came, the server ended the watch, or it fell silent.
async fn read_events(mut body: Incoming, events: usize) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.iter().filter(|byte| **byte == b'\n').count() < events {
        let Ok(frame) = tokio::time::timeout(WATCH_SILENCE, body.frame()).await else { break };
        let Some(frame) = frame else { break };
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    Ok(read)
}
