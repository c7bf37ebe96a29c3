//! How often the runtime is asked for what, how long that takes and how often it fails (follows `instrumented_services.go`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::metrics::{Histogram, Number, exponential_buckets};
use runtime::CriChannel;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::worker::Runtime;

/// In which a gRPC server says how it went, where there is nothing else to say.
const STATUS_HEADER: &str = "grpc-status";
const OK: &str = "0";

#[derive(Debug)]
pub struct Operations {
    totals: Number,
    errors: Number,
    durations: Histogram,
}

impl Default for Operations {
    fn default() -> Self {
        Operations {
            totals: Number::counter(
                "kubelet_runtime_operations_total",
                "Requests to the runtime, by their kind.",
            ),
            errors: Number::counter("kubelet_runtime_operations_errors_total", "Those that failed."),
            durations: Histogram::new(
                "kubelet_runtime_operations_duration_seconds",
                "How long they took.",
                exponential_buckets(0.005, 2.5, 14),
            ),
        }
    }
}

impl Operations {
    /// The same runtime, with whatever it is asked for counted.
    pub fn of(self: &Arc<Self>, runtime: &Runtime) -> Runtime {
        runtime.through(|channel| self.counted(channel))
    }

    fn counted(self: &Arc<Self>, channel: CriChannel) -> CriChannel {
        let operations = self.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<_>| {
            let (operations, channel) = (operations.clone(), channel.clone());
            let operation = operation(request.uri().path());
            async move {
                let began = Instant::now();
                let answer = channel.oneshot(request).await;
                let status = answer.as_ref().ok().map(|answer| answer.headers().get(STATUS_HEADER));
                let failed = status.is_none_or(|status| status.is_some_and(|status| status != OK));
                operations.record(&operation, began.elapsed(), failed);
                answer
            }
        }))
    }

    fn record(&self, operation: &str, took: Duration, failed: bool) {
        let labels = format!("operation_type={operation:?}");
        self.totals.add(&labels, 1.0);
        self.durations.observe(&labels, took.as_secs_f64());
        if failed {
            self.errors.add(&labels, 1.0);
        }
    }

    pub fn write(&self, text: &mut String) {
        self.totals.write(text);
        self.errors.write(text);
        self.durations.write(text);
    }
}

/// `/runtime.v1.RuntimeService/RunPodSandbox` is `run_podsandbox`.
fn operation(path: &str) -> String {
    let method = path.rsplit('/').next().unwrap_or_default();
    if method == "UpdateContainerResources" {
        return "update_container".to_owned();
    }
    let mut name = String::new();
    for letter in method.replace("PodSandbox", "Podsandbox").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_upstreams_names() {
        let check = |method: &str, expect: &str| {
            assert_eq!(operation(&format!("/runtime.v1.RuntimeService/{method}")), expect);
        };
        check("RunPodSandbox", "run_podsandbox");
        check("ListPodSandboxStats", "list_podsandbox_stats");
        check("UpdateContainerResources", "update_container");
        check("ExecSync", "exec_sync");
        check("ImageFsInfo", "image_fs_info");
        check("Version", "version");
    }

    #[tokio::test]
    async fn what_fails_is_counted_as_that_too() {
        let operations = Arc::new(Operations::default());
        let refusing = tower::service_fn(|_| async {
            let status = tonic::Status::not_found("no such container");
            Ok::<_, runtime::ChannelError>(status.into_http::<tonic::body::Body>())
        });
        let channel = operations.counted(BoxCloneSyncService::new(refusing));
        let mut client = runtime::cri::runtime_service_client::RuntimeServiceClient::new(channel);
        let request = runtime::cri::StartContainerRequest::default();
        client.start_container(request).await.expect_err("there is no such container");
        let mut text = String::new();
        operations.write(&mut text);
        for line in [
            r#"kubelet_runtime_operations_total{operation_type="start_container"} 1"#,
            r#"kubelet_runtime_operations_errors_total{operation_type="start_container"} 1"#,
            r#"kubelet_runtime_operations_duration_seconds_count{operation_type="start_container"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}
