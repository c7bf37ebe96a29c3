//! Makes sure that an image is there before a container starts (follows the kubelet's `images/image_manager.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use api::view::core::{Container, Pod, Secret};
use apimachinery::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::event::EventType;
use client::flowcontrol::TokenBucket;
use jiff::{SignedDuration, Timestamp};
use runtime::cri;
use runtime::images::{self, Reference};
use tokio::sync::Semaphore;

use crate::kubeletconfig::{Duration, KubeletConfiguration};
use crate::metrics::Metrics;
use crate::pod::backoff::Backoff;
use crate::pod::memory::Waiting;
use crate::worker::{PodEvents, Runtime};

/// The image as the runtime knows it.
pub struct Image {
    pub reference: String,
    /// Numeric user of the image, where it has one.
    pub uid: Option<i64>,
    pub user: String,
    pub size: u64,
}

/// What is to be there, and who wants it.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`.
    pub policy: &'a str,
    /// `None` for a volume of the pod.
    pub container: Option<&'a Container>,
}

impl Wanted<'_> {
    pub fn tell(&self, events: &PodEvents<'_>, kind: EventType, reason: &str, message: String) {
        match self.container {
            Some(container) => events.container(container, kind, reason, message),
            None => events.pod(kind, reason, message),
        }
    }
}

/// Why there is no image, and when it makes sense to look again.
pub struct Failure {
    pub waiting: Waiting,
    pub retry_at: Timestamp,
}

/// Pauses between pulls that failed, and the bounds of all pulls, shared by all pods of the node.
pub struct ImageManager {
    metrics: Arc<Metrics>,
    failures: Mutex<Failures>,
    /// Places of those that pull at the same time; who comes first pulls first.
    places: Option<Semaphore>,
    pace: Option<Mutex<TokenBucket>>,
}

/// Failed pulls by pod and image.
#[derive(Default)]
struct Failures {
    backoff: Backoff,
    /// What went wrong last, told while the pause lasts (upstream: `prevPullErrMsg`).
    messages: HashMap<String, String>,
}

impl Failures {
    fn note(&mut self, key: &str, message: String, now: Timestamp) {
        self.backoff.fail(key, now);
        self.messages.insert(key.to_owned(), message);
        self.messages.retain(|key, _| self.backoff.is_known(key));
    }

    /// What to wait for, while a pause lasts.
    fn pause(&self, key: &str, image: &str, now: Timestamp) -> Option<Failure> {
        let (retry_at, _) = self.backoff.until_since_failure(key, now)?;
        let last = self.messages.get(key).map(|last| format!(": ErrImagePull: {last}")).unwrap_or_default();
        let message = format!("Back-off pulling image {image:?}{last}");
        Some(Failure { waiting: Waiting { reason: "ImagePullBackOff".to_owned(), message }, retry_at })
    }

    fn forget(&mut self, key: &str) {
        self.backoff.forget(key);
        self.messages.remove(key);
    }
}

/// How long `ErrImagePull` shows before it becomes `ImagePullBackOff`.
const ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);
/// When to look again for an image that is not to be pulled, or has no valid name (upstream: `backOffPeriod`).
pub const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl ImageManager {
    pub fn new(configuration: &KubeletConfiguration, metrics: Arc<Metrics>) -> Self {
        ImageManager {
            metrics,
            failures: Mutex::default(),
            places: configuration.pulls_at_once().map(Semaphore::new),
            pace: configuration.pull_pace().map(Mutex::new),
        }
    }

    pub async fn ensure(
        &self,
        runtime: &Runtime,
        pod: &Pod,
        wanted: Wanted<'_>,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<Image, Failure> {
        if let Err(error) = Reference::parse(wanted.image) {
            let message = unparsable(wanted.image, &error);
            wanted.tell(events, EventType::Warning, "InspectFailed", message.clone());
            return Err(failure("InvalidImageName", message, LOOK_AGAIN));
        }
        let count = |present, pull| self.metrics.requests.image_ensured(wanted.policy, present, pull);
        let present = status(runtime, wanted.image).await.map_err(|e| {
            count(None, None);
            refused(&e)
        })?;
        let must_be_pulled = match (wanted.policy, &present) {
            ("Never", None) => None,
            ("Never" | "IfNotPresent", Some(_)) => Some(false),
            _ => Some(true),
        };
        count(Some(present.is_some()), must_be_pulled);
        match (wanted.policy, present) {
            ("Never", None) => {
                let message =
                    format!("Container image {:?} is not present with pull policy of Never", wanted.image);
                wanted.tell(events, EventType::Warning, "ErrImageNeverPull", message.clone());
                Err(failure("ErrImageNeverPull", message, LOOK_AGAIN))
            }
            ("Never" | "IfNotPresent", Some(image)) => {
                let message = format!(
                    "Container image {:?} already present on machine and can be accessed by the pod",
                    wanted.image
                );
                wanted.tell(events, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            _ => self.pull(runtime, pod, wanted, secrets, events).await,
        }
    }

    async fn pull(
        &self,
        runtime: &Runtime,
        pod: &Pod,
        wanted: Wanted<'_>,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<Image, Failure> {
        let key = format!("{}_{}", pod.metadata.uid, wanted.image);
        if let Some(pause) = self.failures().pause(&key, wanted.image, Timestamp::now()) {
            let message = format!("Back-off pulling image {:?}", wanted.image);
            wanted.tell(events, EventType::Normal, "BackOff", message);
            return Err(pause);
        }
        wanted.tell(events, EventType::Normal, "Pulling", format!("Pulling image {:?}", wanted.image));
        let started = std::time::Instant::now();
        match self.pull_in_turn(runtime, wanted.image, &auth_configs(secrets, wanted.image)).await {
            Ok((image, took)) => {
                self.failures().forget(&key);
                self.metrics.image_pulled(pod, image.size, started.elapsed(), Timestamp::now());
                let message = pulled(wanted.image, image.size, took, started.elapsed());
                wanted.tell(events, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            Err(status) => {
                let message = format!("Failed to pull image {:?}: {}", wanted.image, status.message());
                wanted.tell(events, EventType::Warning, "Failed", message.clone());
                self.failures().note(&key, status.message().to_owned(), Timestamp::now());
                Err(failure("ErrImagePull", status.message().to_owned(), ERROR_SHOWN))
            }
        }
    }

    async fn pull_in_turn(
        &self,
        runtime: &Runtime,
        image: &str,
        auths: &[cri::AuthConfig],
    ) -> Result<(Image, std::time::Duration), tonic::Status> {
        let _place = match &self.places {
            Some(places) => Some(places.acquire().await.expect("the semaphore is never closed")),
            None => None,
        };
        let may = self.pace.as_ref().is_none_or(|pace| {
            pace.lock().expect("no one panics while holding it").try_take(Timestamp::now())
        });
        if !may {
            return Err(tonic::Status::resource_exhausted("pull QPS exceeded"));
        }
        let started = std::time::Instant::now();
        let image = pull(runtime, image, auths).await?;
        Ok((image, started.elapsed()))
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().expect("no one panics while holding it")
    }
}

fn failure(reason: &str, message: String, pause: SignedDuration) -> Failure {
    let waiting = Waiting { reason: reason.to_owned(), message };
    Failure { waiting, retry_at: Timestamp::now() + pause }
}

fn refused(status: &tonic::Status) -> Failure {
    failure("ImageInspectError", status.message().to_owned(), LOOK_AGAIN)
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..Default::default() }
}

/// How long it took by itself, and with its turn waited for.
fn pulled(image: &str, size: u64, took: std::time::Duration, in_all: std::time::Duration) -> String {
    let shown =
        |of: std::time::Duration| Duration::from_millis(i64::try_from(of.as_millis()).unwrap_or(i64::MAX));
    let (took, in_all) = (shown(took), shown(in_all));
    format!(
        "Successfully pulled image {image:?} in {took} ({in_all} including waiting). Image size: {size} bytes."
    )
}

fn unparsable(image: &str, error: &images::Error) -> String {
    let why = match error {
        images::Error::InvalidName(_, why) => format!("couldn't parse image name {image:?}: {why}"),
        other => other.to_string(),
    };
    format!("Failed to apply default image tag {image:?}: {why}")
}

async fn status(runtime: &Runtime, name: &str) -> Result<Option<Image>, tonic::Status> {
    let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: false };
    let image = runtime.images.clone().image_status(request).await?.into_inner().image;
    Ok(image.map(|image| Image {
        reference: image.id,
        uid: image.uid.map(|v| v.value),
        user: image.username,
        size: image.size,
    }))
}

/// Tries each credential in turn, and none if there are none.
async fn pull(runtime: &Runtime, image: &str, auths: &[cri::AuthConfig]) -> Result<Image, tonic::Status> {
    let mut tries: Vec<Option<cri::AuthConfig>> = auths.iter().cloned().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut last = tonic::Status::unknown("no attempt was made");
    for auth in tries {
        let request = cri::PullImageRequest { image: Some(spec(image)), auth, sandbox_config: None };
        match runtime.images.clone().pull_image(request).await {
            Ok(_) => {
                let found = status(runtime, image).await?;
                return found
                    .ok_or_else(|| tonic::Status::not_found("the image vanished right after it was pulled"));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Credentials for the image's registry from `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg` secrets.
fn auth_configs(secrets: &[Secret], image: &str) -> Vec<cri::AuthConfig> {
    let mut found = Vec::new();
    for secret in secrets {
        for (registry, auth) in registries(secret) {
            if image_matches(image, &registry)
                && let Some(auth) = auth_config(&auth, &registry)
            {
                found.push(auth);
            }
        }
    }
    found
}

fn registries(secret: &Secret) -> HashMap<String, Value> {
    let read = |key: &str| -> Option<Value> {
        serde_json::from_slice(&STANDARD.decode(secret.data.get(key)?).ok()?).ok()
    };
    let table = match read(".dockerconfigjson") {
        Some(mut config) => config.get_mut("auths").map(Value::take),
        None => read(".dockercfg"),
    };
    match table {
        Some(Value::Object(entries)) => {
            entries.into_iter().map(|(registry, entry)| (registry.into(), entry)).collect()
        }
        _ => HashMap::new(),
    }
}

/// Whether credentials for `registry` may be sent to where `image` comes from: the host must be the same, part by
/// part, where `*` in a part stands for anything but a dot; a path is a prefix (upstream: `URLsMatch`).
fn image_matches(image: &str, registry: &str) -> bool {
    let registry = registry.trim_start_matches("https://").trim_start_matches("http://");
    let registry = registry.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
    let (first, rest) = image.split_once('/').unwrap_or(("", image));
    let is_host = first.contains('.') || first.contains(':') || first == "localhost";
    if !is_host || DOCKER_HUB.contains(&first) {
        return DOCKER_HUB.contains(&host);
    }
    let (parts, globs) = (first.split('.'), host.split('.'));
    parts.clone().count() == globs.clone().count()
        && parts.zip(globs).all(|(part, glob)| part_matches(part, glob))
        && rest.starts_with(path)
}

/// What Docker Hub is called.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// One part of a host name, which may hold one `*`.
fn part_matches(part: &str, glob: &str) -> bool {
    match glob.split_once('*') {
        None => part == glob,
        Some((before, after)) => {
            part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
    }
}

fn auth_config(entry: &Value, registry: &str) -> Option<cri::AuthConfig> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty() {
        let decoded = String::from_utf8(STANDARD.decode(text("auth")).ok()?).ok()?;
        let (user, secret) = decoded.split_once(':')?;
        (username, password) = (user.to_owned(), secret.to_owned());
    }
    Some(cri::AuthConfig { username, password, server_address: registry.to_owned(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn images_are_told_of_in_upstreams_words() {
        let ms = std::time::Duration::from_millis;
        assert_eq!(
            pulled("a:1", 2048, ms(90), ms(1500)),
            r#"Successfully pulled image "a:1" in 90ms (1.5s including waiting). Image size: 2048 bytes."#
        );
        let error = Reference::parse("Bad//x").expect_err("no name");
        assert_eq!(
            unparsable("Bad//x", &error),
            r#"Failed to apply default image tag "Bad//x": couldn't parse image name "Bad//x": invalid reference format"#
        );
    }

    #[test]
    fn credentials_are_used_for_their_registry_only() {
        let config = json!({"auths": {"https://reg.example:5000/v1/": {"auth": STANDARD.encode("me:secret:x")},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"}}});
        let secret = Secret {
            data: [(".dockerconfigjson".to_owned(), STANDARD.encode(config.to_string()))].into(),
            ..Default::default()
        };
        let users = |image: &str| -> Vec<(String, String)> {
            auth_configs(std::slice::from_ref(&secret), image)
                .into_iter()
                .map(|a| (a.username, a.password))
                .collect()
        };
        assert_eq!(users("reg.example:5000/a/b:1"), [("me".to_owned(), "secret:x".to_owned())]);
        assert_eq!(users("nginx"), [("hub".to_owned(), "p".to_owned())]);
        assert!(users("other.example/a").is_empty());
    }

    #[test]
    fn credentials_match_whole_hosts_and_a_prefix_of_the_path() {
        let check = |image: &str, registry: &str, expect: bool| {
            assert_eq!(image_matches(image, registry), expect, "{image} {registry}");
        };
        check("reg.example/a", "reg.example", true);
        check("reg.example.evil.test/a", "reg.example", false);
        check("reg.example:5000/a", "reg.example", false);
        check("reg.example/team/a", "https://reg.example/team/", true);
        check("reg.example/other/a", "https://reg.example/team/", false);
        check("a.reg.example/b", "*.reg.example", true);
        check("a.b.reg.example/c", "*.reg.example", false);
        check("docker.io/library/nginx", "https://index.docker.io/v1/", true);
        check("team/nginx", "https://index.docker.io/v1/", true);
        check("team/nginx", "reg.example", false);
    }

    #[test]
    fn the_reason_of_a_failed_pull_is_told_while_the_next_is_put_off() {
        let mut failures = Failures::default();
        let now = Timestamp::UNIX_EPOCH;
        failures.note("k", "manifest unknown".to_owned(), now);
        let pause = failures.pause("k", "reg.example/a", now).expect("a pause");
        assert_eq!(
            (pause.waiting.reason.as_str(), pause.waiting.message.as_str()),
            ("ImagePullBackOff", r#"Back-off pulling image "reg.example/a": ErrImagePull: manifest unknown"#)
        );
        assert_eq!(pause.retry_at.duration_since(now).as_secs(), 10);
        failures.forget("k");
        assert!(failures.pause("k", "reg.example/a", now).is_none());
    }
}
