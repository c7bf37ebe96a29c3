//! Where audit events go: at once to a file, or in batches to a file or a webhook (upstream: `plugin/buffered`,
//! `plugin/log`, `plugin/webhook`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::json;
use bytes::Bytes;
use client::{CancellationToken, Transport};
use futures_util::future::OptionFuture;
use http::Request;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::event::{Event, legacy};
use super::log::LogFile;
use super::metrics::{Metrics, Plugin};
use super::policy::Stage;
use super::throttle::{Throttle, ThrottleConfig};
use super::truncate::Truncation;

/// A webhook that does not answer by then has failed.
const POST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a webhook is sent a batch that it does not take.
const ATTEMPTS: u32 = 5;
/// Each pause between two attempts is so many times the one before (upstream: `DefaultRetryBackoffWithInitialDelay`).
const BACKOFF_FACTOR: f64 = 1.5;

/// How lines of the file read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Legacy,
}

/// How events are gathered before they are handed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchConfig {
    /// Events that wait for their batch; more are dropped.
    pub buffer_size: usize,
    /// Events sent together.
    pub max_size: usize,
    /// The longest an event waits for others.
    pub max_wait: Duration,
    /// How often batches are sent at most.
    pub throttle: Option<ThrottleConfig>,
}

/// Whether requests wait until their events are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Batch(BatchConfig),
    Blocking,
    /// And fail when they cannot be.
    BlockingStrict,
}

/// A place where events are kept.
pub enum Backend {
    Log {
        file: Mutex<LogFile>,
        format: Format,
    },
    Webhook {
        transport: Arc<dyn Transport>,
        path: String,
        /// Pause before an attempt is repeated.
        initial_backoff: Duration,
    },
}

impl Backend {
    pub fn log(file: LogFile, format: Format) -> Backend {
        Backend::Log { file: Mutex::new(file), format }
    }

    async fn store(&self, events: &[Event]) -> Result<(), String> {
        match self {
            Backend::Log { file, format } => {
                let lines = events.iter().map(|event| line(event, *format)).collect::<Result<String, _>>()?;
                file.lock().write(lines.as_bytes(), Timestamp::now()).map_err(|error| error.to_string())
            }
            Backend::Webhook { transport, path, .. } => {
                let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events});
                post(&**transport, path, list.to_string()).await
            }
        }
    }

    /// Again where that may help, unless there is no time left for it.
    async fn store_persistently(&self, events: &[Event], stop: &CancellationToken) -> Result<(), String> {
        let Backend::Webhook { initial_backoff, .. } = self else { return self.store(events).await };
        let mut pause = *initial_backoff;
        for _ in 1..ATTEMPTS {
            if self.store(events).await.is_ok() {
                return Ok(());
            }
            if timeout(pause, stop.cancelled()).await.is_ok() {
                break;
            }
            pause = pause.mul_f64(BACKOFF_FACTOR);
        }
        self.store(events).await
    }

    fn plugin(&self) -> Plugin {
        match self {
            Backend::Log { .. } => Plugin::Log,
            Backend::Webhook { .. } => Plugin::Webhook,
        }
    }
}

fn line(event: &Event, format: Format) -> Result<String, String> {
    let line = match format {
        Format::Json => serde_json::to_string(event).map_err(|error| error.to_string())?,
        Format::Legacy => legacy(event),
    };
    Ok(line + "\n")
}

async fn post(transport: &dyn Transport, path: &str, body: String) -> Result<(), String> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(Bytes::from(body));
    let request = request.map_err(|error| error.to_string())?;
    match timeout(POST_TIMEOUT, transport.send(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => Err(format!("the webhook answered {}", response.status())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the webhook did not answer in time".to_owned()),
    }
}

/// A back end, and how events come there.
pub struct Destination {
    pub backend: Backend,
    pub mode: Mode,
    /// None tells events however large they are.
    pub truncation: Option<Truncation>,
}

/// Everywhere events go.
pub type Backends = Vec<Destination>;

/// One back end and the way to it.
pub struct Sink {
    truncation: Option<Truncation>,
    way: Way,
    metrics: Arc<Metrics>,
}

enum Way {
    Direct { backend: Backend, strict: bool },
    Batched(Batched),
}

/// A back end with a task of its own, which hands it batches.
struct Batched {
    events: mpsc::Sender<Event>,
    /// Set when what is there must be handed on at once, for nothing more will come.
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sink {
    /// Must be called within the runtime.
    pub fn new(destination: Destination, metrics: Arc<Metrics>) -> Sink {
        let Destination { backend, mode, truncation } = destination;
        let way = match mode {
            Mode::Blocking => Way::Direct { backend, strict: false },
            Mode::BlockingStrict => Way::Direct { backend, strict: true },
            Mode::Batch(config) => {
                let (events, receiver) = mpsc::channel(config.buffer_size);
                let stop = CancellationToken::new();
                let batches = Batches { events: receiver, config, stop: stop.clone() };
                let task = tokio::spawn(batches.run(backend, metrics.clone()));
                Way::Batched(Batched { events, stop, task: Mutex::new(Some(task)) })
            }
        };
        Sink { truncation, way, metrics }
    }

    /// Hands an event on. Only a strict sink says when that failed, and only before the request is worked on.
    pub async fn take(&self, event: &Event) -> Result<(), String> {
        let event = match self.truncation.map_or(Ok(Cow::Borrowed(event)), |limit| limit.apply(event)) {
            Ok(event) => event,
            Err(error) => {
                self.metrics.lost(Plugin::Truncate, 1, &error.to_string());
                return Ok(());
            }
        };
        match &self.way {
            Way::Direct { backend, strict } => {
                let Err(error) = backend.store(std::slice::from_ref(&*event)).await else { return Ok(()) };
                self.metrics.lost(backend.plugin(), 1, &error);
                if *strict && event.stage == Stage::RequestReceived { Err(error) } else { Ok(()) }
            }
            Way::Batched(batched) => {
                if let Err(error) = batched.events.try_send(event.into_owned()) {
                    self.metrics.lost(Plugin::Buffered, 1, &error.to_string());
                }
                Ok(())
            }
        }
    }

    /// Waits until everything has been handed on.
    pub async fn close(&self) {
        let Way::Batched(batched) = &self.way else { return };
        batched.stop.cancel();
        let task = batched.task.lock().take();
        if let Some(Err(error)) = OptionFuture::from(task).await {
            tracing::error!(%error, "the audit batches ended before they were all sent");
        }
    }
}

struct Batches {
    events: mpsc::Receiver<Event>,
    config: BatchConfig,
    stop: CancellationToken,
}

impl Batches {
    /// Hands on what has come whenever there is a batch of it, or the first of it has waited long enough.
    async fn run(mut self, backend: Backend, metrics: Arc<Metrics>) {
        let mut throttle = self.config.throttle.map(Throttle::new);
        while let Some(first) = self.next().await {
            let mut batch = vec![first];
            let max_wait = self.config.max_wait;
            let fill = async {
                while batch.len() < self.config.max_size {
                    match self.next().await {
                        Some(event) => batch.push(event),
                        None => break,
                    }
                }
            };
            // Too few have come in time: they are sent all the same.
            timeout(max_wait, fill).await.unwrap_or_default();
            if let Some(throttle) = &mut throttle {
                // At the end there is no time to wait.
                self.stop.run_until_cancelled(throttle.wait()).await;
            }
            if let Err(error) = backend.store_persistently(&batch, &self.stop).await {
                metrics.lost(backend.plugin(), batch.len(), &error);
            }
        }
    }

    /// None when everything has been taken and nothing more will come.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            event = self.events.recv() => event,
            () = self.stop.cancelled() => {
                self.events.close();
                self.events.recv().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use client::transport::ResponseFuture;

    use super::super::event::tests::event;
    use super::*;

    /// Answers with the codes in turn, the last one for good, and keeps how many events each request had.
    struct Webhook {
        codes: Mutex<Vec<u16>>,
        received: Mutex<Vec<usize>>,
    }

    impl Transport for Webhook {
        fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
            let list: apimachinery::Value = serde_json::from_slice(request.body()).expect("JSON");
            self.received.lock().push(list["items"].as_array().map_or(0, Vec::len));
            let mut codes = self.codes.lock();
            let code = if codes.len() > 1 { codes.remove(0) } else { codes[0] };
            let mut response = http::Response::new(crate::body::empty());
            *response.status_mut() = http::StatusCode::from_u16(code).expect("a code");
            Box::pin(async move { Ok(response) })
        }
    }

    async fn check(codes: &[u16], events: usize, batches: &[usize], lost: u64) {
        let webhook = Arc::new(Webhook { codes: Mutex::new(codes.to_vec()), received: Mutex::default() });
        let backend = Backend::Webhook {
            transport: webhook.clone(),
            path: "/".to_owned(),
            initial_backoff: Duration::from_secs(10),
        };
        let mode = Mode::Batch(BatchConfig {
            buffer_size: 5,
            max_size: 2,
            max_wait: Duration::from_secs(30),
            throttle: None,
        });
        let metrics = Arc::<Metrics>::default();
        let sink = Sink::new(Destination { backend, mode, truncation: None }, metrics.clone());
        for _ in 0..events {
            sink.take(&event()).await.expect("never refuses");
        }
        sink.close().await;
        assert_eq!(*webhook.received.lock(), batches, "{codes:?} {events}");
        let total: u64 = metrics
            .render()
            .lines()
            .filter(|line| line.contains("_error_total{"))
            .map(|line| {
                let (_, count) = line.split_once("} ").expect("has a value");
                count.parse::<u64>().expect("a number")
            })
            .sum();
        assert_eq!(total, lost, "{codes:?} {events}");
    }

    #[tokio::test]
    async fn what_waits_for_its_batch_is_sent_before_the_end() {
        check(&[200], 0, &[], 0).await;
        check(&[200], 1, &[1], 0).await;
        check(&[200], 5, &[2, 2, 1], 0).await;
    }

    #[tokio::test]
    async fn what_finds_no_room_is_lost_and_counted() {
        check(&[200], 7, &[2, 2, 1], 2).await;
    }

    #[tokio::test]
    async fn at_the_end_a_batch_is_tried_once_more_and_no_further() {
        check(&[500, 200], 1, &[1, 1], 0).await;
        check(&[500], 1, &[1, 1], 1).await;
    }
}
