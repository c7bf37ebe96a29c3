//! Records Events: what a component did and why, for people. Alike events are counted up instead of repeated.

mod correlator;

use std::sync::Arc;

use api::resource::EVENTS;
use api::view::core::ObjectReference;
use apimachinery::{json, time};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::flowcontrol::TokenBucket;
use crate::request::{Client, PatchType};
use correlator::{Correlator, Remembered};

/// Events waiting to be written; past that, new ones are dropped.
const QUEUE_MAX: usize = 1000;

/// Whether something went as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Occurrence {
    regarding: Regarding,
    kind: EventType,
    reason: String,
    message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Regarding {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

/// Takes events and writes them in the background, in order. Cloning shares it.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<(Occurrence, Timestamp)>,
}

impl EventRecorder {
    /// `component` is the event's source; `host` its node, or empty.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        Self::paced(client, component, host, None)
    }

    /// As [`EventRecorder::new`], writing no more often than `pace` allows.
    pub fn paced(client: Client, component: &str, host: &str, pace: Option<TokenBucket>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            component: component.into(),
            host: host.into(),
            correlator: Correlator::new(),
            known: Remembered::new(),
            pace,
        };
        tokio::spawn(writer.run(receiver));
        EventRecorder { sender }
    }

    /// Never blocks; when the queue is full the event is lost, with a trace in the log.
    pub fn event(
        &self,
        regarding: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let regarding = Regarding {
            api_version: regarding.api_version.clone(),
            kind: regarding.kind.clone(),
            namespace: regarding.namespace.clone(),
            name: regarding.name.clone(),
            uid: regarding.uid.clone(),
            field_path: regarding.field_path.clone(),
        };
        let occurrence = Occurrence { regarding, kind, reason: reason.to_owned(), message: message.into() };
        if let Err(error) = self.sender.try_send((occurrence, Timestamp::now())) {
            tracing::warn!(%error, reason, "event dropped");
        }
    }
}

struct Written {
    namespace: String,
    name: String,
    count: u32,
}

struct Writer {
    client: Client,
    component: Arc<str>,
    host: Arc<str>,
    correlator: Correlator,
    /// By the key under which the correlator counts them together.
    known: Remembered<Occurrence, Written>,
    pace: Option<TokenBucket>,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<(Occurrence, Timestamp)>) {
        while let Some((occurrence, at)) = receiver.recv().await {
            let Some((key, occurrence)) = self.correlator.correlate(occurrence, at) else { continue };
            if let Some(pace) = &mut self.pace {
                tokio::time::sleep(pace.take(Timestamp::now())).await;
            }
            if let Err(error) = self.write(key, occurrence, at).await {
                tracing::debug!(%error, "event could not be written");
            }
        }
    }

    async fn write(
        &mut self,
        key: Occurrence,
        occurrence: Occurrence,
        at: Timestamp,
    ) -> crate::error::Result<()> {
        if let Some(written) = self.known.get_mut(&key) {
            written.count += 1;
            let patch = json!({
                "count": written.count, "lastTimestamp": time::format_time(at), "message": occurrence.message,
            });
            let patched = self
                .client
                .patch(EVENTS, &written.namespace, &written.name, None, PatchType::Strategic, &patch)
                .await;
            match patched {
                // Events live an hour; an expired one starts anew.
                Err(error) if error.is_not_found() => self.known.remove(&key),
                other => return other.map(drop),
            }
        }
        let written = self.create(&occurrence, at).await?;
        self.known.insert(key, written);
        Ok(())
    }

    async fn create(&self, occurrence: &Occurrence, at: Timestamp) -> crate::error::Result<Written> {
        let regarding = &occurrence.regarding;
        let namespace =
            if regarding.namespace.is_empty() { "default" } else { &regarding.namespace }.to_owned();
        let name = format!("{}.{:x}", regarding.name, at.as_nanosecond());
        let now = time::format_time(at);
        let mut object = json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"kind": regarding.kind, "apiVersion": regarding.api_version, "name": regarding.name,
                "namespace": regarding.namespace, "uid": regarding.uid},
            "reason": occurrence.reason, "message": occurrence.message, "type": occurrence.kind.as_str(), "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": &*self.component}, "reportingComponent": &*self.component,
            "reportingInstance": &*self.host,
        });
        if !self.host.is_empty() {
            object["source"]["host"] = (*self.host).into();
        }
        if !regarding.field_path.is_empty() {
            object["involvedObject"]["fieldPath"] = regarding.field_path.as_str().into();
        }
        self.client.create(EVENTS, &namespace, &object).await?;
        Ok(Written { namespace, name, count: 1 })
    }
}
