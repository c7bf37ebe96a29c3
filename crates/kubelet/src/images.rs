//! Makes sure that an image is there before a container starts (follows the kubelet's `images/image_manager.go`).

use std::collections::HashMap;
use std::sync::Mutex;

use api::view::core::{Container, Pod, Secret};
use apimachinery::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::event::EventType;
use jiff::Timestamp;
use runtime::cri;

use crate::pod::backoff::Backoff;
use crate::pod::memory::Waiting;
use crate::worker::{PodEvents, Runtime};

/// The image as the runtime knows it.
pub struct Image {
    pub reference: String,
    /// Numeric user of the image, where it has one.
    pub uid: Option<i64>,
    pub user: String,
}

/// Why there is no image, and when it makes sense to look again.
pub struct Failure {
    pub waiting: Waiting,
    pub retry_at: Timestamp,
}

/// Pauses between pulls that failed, shared by all pods of the node.
#[derive(Default)]
pub struct ImageManager {
    backoff: Mutex<Backoff>,
}

impl ImageManager {
    pub async fn ensure(
        &self,
        runtime: &Runtime,
        pod: &Pod,
        container: &Container,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<Image, Failure> {
        let present = status(runtime, &container.image)
            .await
            .map_err(|e| self.refused(pod, "ImageInspectError", &e))?;
        match (container.image_pull_policy.as_str(), present) {
            ("Never", None) => {
                let message =
                    format!("Container image {:?} is not present with pull policy of Never", container.image);
                events.container(container, EventType::Warning, "ErrImageNeverPull", message.clone());
                Err(self.failure(pod, container, "ErrImageNeverPull", message))
            }
            ("Never" | "IfNotPresent", Some(image)) => {
                let message = format!("Container image {:?} already present on machine", container.image);
                events.container(container, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            _ => self.pull(runtime, pod, container, secrets, events).await,
        }
    }

    async fn pull(
        &self,
        runtime: &Runtime,
        pod: &Pod,
        container: &Container,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<Image, Failure> {
        let key = format!("{}_{}", pod.metadata.uid, container.image);
        let now = Timestamp::now();
        let pause =
            self.backoff.lock().expect("no one panics while holding it").until_since_failure(&key, now);
        if let Some((retry_at, _)) = pause {
            let message = format!("Back-off pulling image {:?}", container.image);
            events.container(container, EventType::Normal, "BackOff", message.clone());
            let waiting = Waiting { reason: "ImagePullBackOff".to_owned(), message };
            return Err(Failure { waiting, retry_at });
        }
        events.container(
            container,
            EventType::Normal,
            "Pulling",
            format!("Pulling image {:?}", container.image),
        );
        let started = std::time::Instant::now();
        match pull(runtime, container, &auth_configs(secrets, &container.image)).await {
            Ok(image) => {
                self.backoff.lock().expect("no one panics while holding it").forget(&key);
                let took = started.elapsed().as_millis();
                let message = format!("Successfully pulled image {:?} in {took}ms", container.image);
                events.container(container, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            Err(status) => {
                let message = format!("Failed to pull image {:?}: {}", container.image, status.message());
                events.container(container, EventType::Warning, "Failed", message.clone());
                events.container(container, EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
                Err(self.failure_at(&key, "ErrImagePull", status.message().to_owned(), Timestamp::now()))
            }
        }
    }

    fn failure(&self, pod: &Pod, container: &Container, reason: &str, message: String) -> Failure {
        let key = format!("{}_{}", pod.metadata.uid, container.image);
        self.failure_at(&key, reason, message, Timestamp::now())
    }

    fn refused(&self, pod: &Pod, reason: &str, status: &tonic::Status) -> Failure {
        let reason = if status.code() == tonic::Code::InvalidArgument { "InvalidImageName" } else { reason };
        self.failure_at(&pod.metadata.uid, reason, status.message().to_owned(), Timestamp::now())
    }

    /// A first failure shows itself before the pause does: upstream reports `ErrImagePull`, then `ImagePullBackOff`.
    fn failure_at(&self, key: &str, reason: &str, message: String, now: Timestamp) -> Failure {
        let delay = self.backoff.lock().expect("no one panics while holding it").fail(key, now);
        const SHOWN: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
        let retry_at = now + delay.min(SHOWN);
        Failure { waiting: Waiting { reason: reason.to_owned(), message }, retry_at }
    }
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..Default::default() }
}

async fn status(runtime: &Runtime, name: &str) -> Result<Option<Image>, tonic::Status> {
    let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: false };
    let image = runtime.images.clone().image_status(request).await?.into_inner().image;
    Ok(image.map(|image| Image {
        reference: image.id,
        uid: image.uid.map(|v| v.value),
        user: image.username,
    }))
}

/// Tries each credential in turn, and none if there are none.
async fn pull(
    runtime: &Runtime,
    container: &Container,
    auths: &[cri::AuthConfig],
) -> Result<Image, tonic::Status> {
    let mut tries: Vec<Option<cri::AuthConfig>> = auths.iter().cloned().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut last = tonic::Status::unknown("no attempt was made");
    for auth in tries {
        let request =
            cri::PullImageRequest { image: Some(spec(&container.image)), auth, sandbox_config: None };
        match runtime.images.clone().pull_image(request).await {
            Ok(_) => {
                let found = status(runtime, &container.image).await?;
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
        Some(Value::Object(entries)) => entries.into_iter().collect(),
        _ => HashMap::new(),
    }
}

fn image_matches(image: &str, registry: &str) -> bool {
    let host = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let first = image.split('/').next().unwrap_or_default();
    let named = image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    if named {
        image.starts_with(host)
    } else {
        matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
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
}
