//! Posts reviews to servers that a kubeconfig names: who knows users, who decides. Follows
//! `k8s.io/apiserver/pkg/util/webhook.GenericWebhook`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Value;
use bytes::Bytes;
use client::Transport;
use client::config::RestConfig;
use client::transport::Https;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode, Uri};
use tokio::time::{sleep, timeout};

use crate::body;
use crate::draft::to_json;

/// Tries at most, and the pauses between them, which grow (upstream: DefaultRetryBackoffWithInitialDelay).
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_FACTOR: f64 = 1.5;
/// A longer answer is no review.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("no answer in {0:?}")]
    Deadline(Duration),
    #[error("{0}")]
    Transport(#[from] client::Error),
    #[error("the server answered with code {0}")]
    Refused(StatusCode),
    #[error("the answer is no review: {0}")]
    Answer(String),
}

impl ReviewError {
    /// Whether another try may end otherwise (upstream: DefaultShouldRetry).
    fn passes(&self) -> bool {
        matches!(
            self,
            ReviewError::Refused(
                StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::GATEWAY_TIMEOUT
                    | StatusCode::TOO_MANY_REQUESTS
            )
        )
    }
}

/// The way to one such server.
pub struct ReviewClient {
    transport: Arc<dyn Transport>,
    path: String,
}

impl ReviewClient {
    /// The current context says where the server is and who asks it.
    pub fn from_kubeconfig(path: &Path) -> Result<ReviewClient, client::Error> {
        ReviewClient::new(&RestConfig::from_kubeconfig(path)?)
    }

    pub fn new(config: &RestConfig) -> Result<ReviewClient, client::Error> {
        let uri: Uri = config.server.parse().map_err(|error| {
            client::Error::Transport(format!("server address {:?} is not a URL: {error}", config.server))
        })?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(ReviewClient { transport: Https::new(config)?, path })
    }

    /// Posts to this path of the server that the transport leads to.
    pub fn over(transport: Arc<dyn Transport>, path: &str) -> ReviewClient {
        ReviewClient { transport, path: path.to_owned() }
    }

    /// Posts a review and reads it back with its status.
    pub async fn post(&self, review: &Value, within: Duration) -> Result<Value, ReviewError> {
        let body = Bytes::from(to_json(review));
        let mut pause = PAUSE;
        let mut left = TRIES;
        loop {
            left -= 1;
            let answered = timeout(within, self.exchange(body.clone())).await;
            match answered.unwrap_or(Err(ReviewError::Deadline(within))) {
                Err(error) if error.passes() && left > 0 => {
                    tracing::debug!(%error, "a review is tried again")
                }
                outcome => return outcome,
            }
            sleep(pause).await;
            pause = pause.mul_f64(PAUSE_FACTOR);
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Value, ReviewError> {
        let unreadable = |why: &dyn std::fmt::Display| ReviewError::Answer(why.to_string());
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .body(body)
            .map_err(|error| unreadable(&error))?;
        let response = self.transport.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(ReviewError::Refused(status));
        }
        let answer = body::read_at_most(response.into_body(), ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|status| unreadable(&status.message))?;
        serde_json::from_slice(&answer).map_err(|error| unreadable(&error))
    }
}
