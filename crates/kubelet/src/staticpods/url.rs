//! The URL that describes static pods, asked again and again: HTTP says nothing of changes (follows `config/http.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use runtime::images::{HttpClient, TlsFiles};
use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};

use super::manifest::{self, Context, Origin};
use super::{Described, StaticPod};

/// How long an answer may take, body included; upstream's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A longer answer is refused (upstream's `maxConfigLength`).
const BODY_BYTES_MAX: usize = 10 << 20;
/// So many failures in a row are told of; upstream's.
const WARNINGS_MAX: u32 = 4;

/// Why the URL describes no pods.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Ask(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Slow,
    #[error("{url}: {status}")]
    Status { url: String, status: StatusCode },
    #[error("zero-length data received from {0}")]
    Empty(String),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

/// What is asked, and how.
pub struct Source {
    url: String,
    headers: HeaderMap,
    node_name: String,
    period: Duration,
    client: HttpClient,
    /// The answer that was last read.
    body: Bytes,
}

impl Source {
    /// `None` when there is no URL. Headers that HTTP does not allow are left out, and told of.
    pub fn new(
        url: &str,
        headers: &BTreeMap<String, Vec<String>>,
        node_name: String,
        period: Duration,
    ) -> Option<Self> {
        let mut sent = HeaderMap::new();
        for (name, value) in headers.iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v))) {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => drop(sent.append(name, value)),
                // The value may be a secret.
                _ => tracing::error!(header = name, "header of staticPodURLHeader cannot be sent"),
            }
        }
        (!url.is_empty()).then(|| Source {
            url: url.to_owned(),
            headers: sent,
            node_name,
            period,
            client: HttpClient::new(TlsFiles::default()),
            body: Bytes::new(),
        })
    }

    /// Tells what the URL describes, for ever.
    pub async fn follow(mut self, sender: watch::Sender<Described>) {
        let mut turns = time::interval(self.period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures: u32 = 0;
        loop {
            turns.tick().await;
            match self.ask(&sender).await {
                Ok(()) if failures > 0 => {
                    tracing::info!(url = self.url, "static pods are read from the URL again");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.complain(&error, failures);
                }
            }
        }
    }

    fn complain(&self, error: &Error, failures: u32) {
        match failures {
            0..WARNINGS_MAX => tracing::warn!(url = self.url, %error, "static pods not read from the URL"),
            WARNINGS_MAX => {
                tracing::warn!(url = self.url, %error, "static pods not read from the URL; no more is said of that")
            }
            _ => tracing::debug!(url = self.url, %error, "static pods not read from the URL"),
        }
    }

    async fn ask(&mut self, sender: &watch::Sender<Described>) -> Result<(), Error> {
        let body = time::timeout(TIMEOUT, self.get()).await.map_err(|_| Error::Slow)??;
        if body.is_empty() {
            // Otherwise the same pods as before would not be news when they are described again.
            self.body = body;
            tell(sender, Vec::new());
            return Err(Error::Empty(self.url.clone()));
        }
        if body == self.body {
            return Ok(());
        }
        self.body = body;
        let (origin, now) = (Origin::Url(&self.url), Timestamp::now());
        let pods = manifest::parse_any(&self.body, Context { origin, node_name: &self.node_name, now })?;
        tell(sender, pods.into_iter().map(Arc::new).collect());
        Ok(())
    }

    async fn get(&self) -> Result<Bytes, Error> {
        let response = self.client.get(&self.url, &self.headers).await.map_err(Error::Ask)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(Error::Status { url: self.url.clone(), status });
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(Error::Ask)?;
        Ok(body.to_bytes())
    }
}

fn tell(sender: &watch::Sender<Described>, pods: Vec<Arc<StaticPod>>) {
    sender.send_if_modified(|known| known.url.replace(pods.clone()) != Some(pods));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request with the next text, and with the last one from then on; notes the requests.
    struct Server {
        url: String,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        async fn new(answers: Vec<String>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
            let url = format!("http://{}/pods", listener.local_addr().expect("an address"));
            let asked = Arc::new(Mutex::new(Vec::new()));
            let noted = asked.clone();
            tokio::spawn(async move {
                for at in 0.. {
                    let (mut stream, _) = listener.accept().await.expect("accepts");
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        assert_ne!(
                            stream.read_buf(&mut request).await.expect("reads"),
                            0,
                            "no whole request"
                        );
                    }
                    noted.lock().expect("no panic").push(String::from_utf8_lossy(&request).into_owned());
                    let answer = &answers[at.min(answers.len() - 1)];
                    stream.write_all(answer.as_bytes()).await.expect("writes");
                }
            });
            Server { url, asked }
        }

        /// Follows what it describes.
        fn follow(&self) -> watch::Receiver<Described> {
            let headers = BTreeMap::from([("X-Token".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
            let source = Source::new(&self.url, &headers, "n".to_owned(), Duration::from_millis(1));
            let (sender, described) = watch::channel(Described::default());
            tokio::spawn(source.expect("there is a URL").follow(sender));
            described
        }
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn pod(image: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: a, image: {image}}}]}}}}"
        )
    }

    fn image(described: &Described) -> Option<String> {
        described.pods().first().map(|pod| pod.pod.spec.containers[0].image.clone())
    }

    #[tokio::test]
    async fn a_pod_changes_with_the_answer_and_outlives_failures() {
        let nonsense = answer("200 OK", "no pod");
        let server = Server::new(vec![
            answer("503 Service Unavailable", ""),
            answer("200 OK", &pod("b")),
            answer("500 Internal Server Error", ""),
            nonsense,
            answer("200 OK", &pod("c")),
        ])
        .await;
        let mut described = server.follow();
        assert!(!described.borrow().is_complete());
        let mut seen = Vec::new();
        while seen.last() != Some(&Some("c".to_owned())) {
            described.changed().await.expect("is followed");
            seen.push(image(&described.borrow_and_update()));
        }
        assert!(seen.iter().all(Option::is_some), "no failure ended the pod: {seen:?}");
        let asked = server.asked.lock().expect("no panic")[0].to_lowercase();
        assert!(asked.starts_with("get /pods http/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-token: a\r\nx-token: b\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn an_empty_answer_describes_no_pods() {
        let server = Server::new(vec![answer("200 OK", &pod("b")), answer("200 OK", "")]).await;
        let mut described = server.follow();
        described.wait_for(|now| now.is_complete() && now.pods().is_empty()).await.expect("is followed");
    }

    #[tokio::test]
    async fn what_was_described_before_an_empty_answer_is_described_again() {
        let answers = [pod("b"), String::new(), pod("b")].map(|body| answer("200 OK", &body));
        let server = Server::new(answers.into()).await;
        let described = server.follow();
        // The one after tells that the third was read.
        while server.asked.lock().expect("no panic").len() <= 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(image(&described.borrow()).as_deref(), Some("b"));
    }

    #[test]
    fn without_a_url_nothing_is_asked() {
        assert!(Source::new("", &BTreeMap::new(), "n".to_owned(), TIMEOUT).is_none());
    }
}
