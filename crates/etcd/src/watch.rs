//! One watch, on a stream of its own at one member.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::client::{ANSWER_BYTES_MAX, marked};
use crate::error::Error;
use crate::proto::watch_client::WatchClient;
use crate::proto::watch_request::RequestUnion;
use crate::proto::{Event, WatchCreateRequest, WatchProgressRequest, WatchRequest};
use crate::version::Version;

/// The first request and one for progress; a further one for progress finds that one waiting.
const REQUESTS_WAITING: usize = 2;

#[derive(Debug)]
pub struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<crate::proto::WatchResponse>,
    version: Version,
}

/// What a watch tells.
#[derive(Debug)]
pub struct Told {
    /// Changes in the order of their revisions; those of one revision come together.
    pub events: Vec<Event>,
    /// Everything up to this revision has been told.
    pub up_to: i64,
}

impl Watch {
    pub(crate) async fn start(
        channel: Channel,
        (key, range_end): (Bytes, Bytes),
        start_revision: i64,
        version: Version,
    ) -> Result<Watch, Status> {
        let (requests, waiting) = mpsc::channel(REQUESTS_WAITING);
        let create = WatchCreateRequest { key, range_end, start_revision };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).expect("there is room for the first request");
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = client.watch(marked(ReceiverStream::new(waiting))).await?.into_inner();
        Ok(Watch { requests, answers, version })
    }

    /// Asks to be told how far the watch has come, if the member's answer can be relied on.
    pub fn request_progress(&self) {
        if self.version.has_progress_requests() {
            let request =
                WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
            // With one that waits already, or a broken stream, nothing is lost.
            self.requests.try_send(request).ok();
        }
    }

    /// The next changes, or none but progress. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Told, Error> {
        loop {
            let answer = self.answers.message().await.map_err(Error::Refused)?;
            let answer = answer.ok_or_else(|| Error::Ended("the stream is at its end".to_owned()))?;
            if answer.compact_revision != 0 {
                return Err(Error::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                return Err(Error::Ended(answer.cancel_reason));
            }
            let told = answer.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
            let is_progress = !answer.created && self.version.has_progress_requests();
            let progress = answer.header.filter(|_| is_progress).map(|header| header.revision);
            if let Some(up_to) = told.or(progress) {
                return Ok(Told { events: answer.events, up_to });
            }
        }
    }
}
