//! `/checkpoint/NAMESPACE/POD/CONTAINER`: has the runtime save a running container (follows `Server.checkpoint`).

use api::view::core::Pod;
use apimachinery::json;
use http::{Method, Response, StatusCode};
use runtime::cri;
use tonic::Code;

use super::route::Target;
use super::{Body, Refusal, Server};
use client::query::query_values;

pub async fn serve(
    server: &Server,
    target: &Target,
    method: &Method,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    if method != Method::POST {
        return Err(Refusal::wrong_method());
    }
    let pod = server.pod(target).map_err(|_| Refusal::not_found("pod does not exist"))?;
    if !crate::pod::all_containers(&pod).any(|(container, _)| container.name == target.container) {
        return Err(Refusal::not_found(format!("container {} does not exist", target.container)));
    }
    let timeout =
        timeout(query).ok_or_else(|| Refusal::not_found("cannot parse value of timeout parameter"))?;
    let container_id = server.running_container(target).await?;
    let location = location(server, &pod, target);
    let ask = cri::CheckpointContainerRequest { container_id, location: location.clone(), timeout };
    match server.shared.runtime.runtime.clone().checkpoint_container(ask).await {
        Ok(_) => Ok(super::json(&json!({"items": [location]}))),
        Err(status) => {
            let Target { namespace, pod, container, .. } = target;
            let code = match status.code() {
                Code::Unimplemented => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let why = format!("checkpointing of {namespace}/{pod}/{container} failed ({})", status.message());
            Err(Refusal(code, why))
        }
    }
}

/// The last one counts; without any the runtime has its own. `None` if it is no number.
fn timeout(query: &str) -> Option<i64> {
    query_values(query, "timeout").last().map_or(Some(0), |text| text.parse().ok())
}

fn location(server: &Server, pod: &Pod, target: &Target) -> String {
    let (name, namespace) = (&pod.metadata.name, &pod.metadata.namespace);
    let now = apimachinery::time::format_time(jiff::Timestamp::now());
    let file = format!("checkpoint-{name}_{namespace}-{}-{now}.tar", target.container);
    server.shared.config.root_dir.join("checkpoints").join(file).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_timeout_counts() {
        assert_eq!(timeout(""), Some(0));
        assert_eq!(timeout("timeout=1&timeout=20"), Some(20));
        assert_eq!(timeout("timeout=soon"), None);
    }
}
