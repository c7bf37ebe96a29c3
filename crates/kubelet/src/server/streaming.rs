//! exec, attach and port-forward: the runtime says where its stream server is, and bytes are passed through.

use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::{cri, streaming::must_name_ports};
use tokio::net::TcpStream;

use super::route::Target;
use super::{Body, Refusal, Server};
use crate::observe::{self, Observed, State};
use client::query::{self, query_flag, query_values};

fn failed(what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{what}: {why}"))
}

/// Upstream's words for a container that has ended or was never there.
fn not_running(target: &Target) -> Refusal {
    let message = format!("container not found ({:?})", target.container);
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// The same for who wants to attach to it, who is told otherwise.
fn not_attachable(target: &Target) -> Refusal {
    let Target { namespace, pod, container, .. } = target;
    let message = format!("container {container} not found in pod {pod}_{namespace}");
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
}

impl Server {
    async fn observed(&self, target: &Target) -> Result<Observed, Refusal> {
        let pod = self.pod(target)?;
        observe::observe(&self.shared.runtime, &pod)
            .await
            .map_err(|status| failed("runtime", status.message()))
    }

    pub(super) async fn running_container(&self, target: &Target) -> Result<String, Refusal> {
        let running = self.running(target).await?;
        running.ok_or_else(|| not_running(target))
    }

    /// The container's id, if it is there and has not ended.
    async fn running(&self, target: &Target) -> Result<Option<String>, Refusal> {
        let observed = self.observed(target).await?;
        let container = observed.container(&target.container).filter(|c| c.state == State::Running);
        Ok(container.map(|c| c.id.clone()))
    }
}

pub async fn exec(
    server: &Server,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let ask = cri::ExecRequest {
        container_id: server.running_container(target).await?,
        cmd: query_values(query, "command").collect(),
        tty: query_flag(query, "tty"),
        stdin: query_flag(query, "input"),
        stdout: query_flag(query, "output"),
        stderr: query_flag(query, "error") && !query_flag(query, "tty"),
    };
    let answer =
        server.shared.runtime.runtime.clone().exec(ask).await.map_err(|s| failed("exec", s.message()))?;
    pass_through(&answer.into_inner().url, request).await
}

pub async fn attach(
    server: &Server,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let tty = server
        .pod(target)
        .ok()
        .and_then(|pod| {
            crate::pod::all_containers(&pod).find(|(c, _)| c.name == target.container).map(|(c, _)| c.tty)
        })
        .unwrap_or(false);
    let ask = cri::AttachRequest {
        container_id: server.running(target).await?.ok_or_else(|| not_attachable(target))?,
        tty,
        stdin: query_flag(query, "input"),
        stdout: query_flag(query, "output"),
        stderr: query_flag(query, "error") && !tty,
    };
    let answer =
        server.shared.runtime.runtime.clone().attach(ask).await.map_err(|s| failed("attach", s.message()))?;
    pass_through(&answer.into_inner().url, request).await
}

pub async fn port_forward(
    server: &Server,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let port = match must_name_ports(request.headers()) {
        true => ports(query).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?,
        false => Vec::new(),
    };
    let observed = server.observed(target).await?;
    let sandbox =
        observed.ready_sandbox().ok_or_else(|| Refusal::not_found("the pod has no running sandbox"))?;
    let ask = cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    let answer = server.shared.runtime.runtime.clone().port_forward(ask).await;
    let answer = answer.map_err(|s| failed("port-forward", s.message()))?;
    pass_through(&answer.into_inner().url, request).await
}

/// The ports that a query names. Follows `NewV4Options`.
fn ports(query: &str) -> Result<Vec<i32>, String> {
    let mut found = Vec::new();
    for value in query_values(query, "port") {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for port in query::ports(&value) {
            match port.map_err(|why| format!("unable to parse {value:?} as a port: {why}"))? {
                0 => return Err(format!("port {value:?} must be > 0")),
                port => found.push(i32::from(port)),
            }
        }
    }
    if found.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    Ok(found)
}

/// Repeats the request to the runtime's stream server; when that switches protocols, so do we, and copy bytes.
async fn pass_through(url: &str, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let uri: Uri = url.parse().map_err(|e| failed("stream server address", e))?;
    let authority = uri.authority().ok_or_else(|| failed("stream server address", "no host"))?.to_string();
    let stream = TcpStream::connect(&authority).await.map_err(|e| failed("stream server", e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed("stream server", e))?;
    tokio::spawn(connection.with_upgrades());
    let mut forwarded =
        Request::builder().method(request.method()).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != header::HOST) {
        forwarded = forwarded.header(name, value);
    }
    let forwarded = forwarded.header(header::HOST, authority).body(Empty::<bytes::Bytes>::new());
    let forwarded = forwarded.map_err(|e| failed("stream request", e))?;
    let client_side = hyper::upgrade::on(&mut request);
    let mut response = sender.send_request(forwarded).await.map_err(|e| failed("stream server", e))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let runtime_side = hyper::upgrade::on(&mut response);
        tokio::spawn(copy(client_side, runtime_side));
    }
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

async fn copy(client: hyper::upgrade::OnUpgrade, runtime: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(runtime)) = tokio::join!(client, runtime) else { return };
    let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
        tracing::debug!(%error, "stream ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_has_ended_is_not_found_in_upstreams_words() {
        let target = Target {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: String::new(),
            container: "main".to_owned(),
        };
        let check = |refusal: Refusal, expect: &str| {
            assert_eq!((refusal.0.as_u16(), refusal.1.as_str()), (500, expect));
        };
        check(not_running(&target), "container not found (\"main\")");
        check(not_attachable(&target), "container main not found in pod web_shop");
    }

    #[test]
    fn ports_are_named_each_or_all_in_one() {
        assert_eq!(ports("port=80%2C81&x=1&port=65535"), Ok(vec![80, 81, 65535]));
    }

    #[test]
    fn missing_and_bad_ports_are_refused_in_upstreams_words() {
        let check = |query: &str, expect: &str| assert_eq!(ports(query), Err(expect.to_owned()), "{query}");
        check("", "query parameter \"port\" is required");
        check("ports=80", "query parameter \"port\" is required");
        check("port=80&port=", "query parameter \"port\" cannot be empty");
        check("port=80,0", "port \"80,0\" must be > 0");
        check(
            "port=80,http",
            "unable to parse \"80,http\" as a port: strconv.ParseUint: parsing \"http\": invalid syntax",
        );
        check(
            "port=65536",
            "unable to parse \"65536\" as a port: strconv.ParseUint: parsing \"65536\": value out of range",
        );
    }
}
