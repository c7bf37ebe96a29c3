//! The demo: an application of three replicas behind a Service, from an image made of this very binary.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use api::resource::{DEPLOYMENTS, SERVICES};
use api::view::apps::Deployment;
use api::view::core::Service;
use apimachinery::{Value, json};
use bytes::Bytes;
use client::PatchType;
use cluster::{DEFAULT_NAME, Layout};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use runtime::Runtime;
use runtime::images::{ContainerConfig, import_rootfs, program_files};
use tokio::net::TcpListener;

use crate::progress::Progress;
use crate::services::control_plane::Api;
use crate::waiting;

const NAME: &str = "demo";
const NAMESPACE: &str = "default";
const IMAGE: &str = "coxswain.local/demo:latest";
const REPLICAS: i32 = 3;
const PORT: u16 = 8080;
const PROGRAM: &str = "/cox";

/// Makes the image, applies the application, waits until all replicas are available, and says what to do next.
pub async fn deploy(
    api: &Api,
    runtime: &Arc<Runtime>,
    node_ip: IpAddr,
    layout: &Layout,
    progress: &Progress,
) -> anyhow::Result<()> {
    let images = runtime.images().clone();
    tokio::task::spawn_blocking(move || make_image(&images))
        .await?
        .context("the demo image cannot be made")?;
    progress.step("demo image is made from this binary");
    let (admin, since) = (api.admin(), Timestamp::now());
    for (resource, object) in [(DEPLOYMENTS, deployment()), (SERVICES, service())] {
        admin.patch(resource, NAMESPACE, NAME, None, PatchType::Apply, &object).await?;
    }
    let what = format!("{REPLICAS} replicas of the demo to be available");
    let owned = |name: &str| name == NAME || name.starts_with(&format!("{NAME}-"));
    let reasons = waiting::tell_warnings(progress, api.admin(), since, NAMESPACE, owned);
    waiting::wait(progress, &what, reasons, available(api)).await;
    progress.step(&format!("demo runs with {REPLICAS} replicas"));
    let service: Service = admin.get(SERVICES, NAMESPACE, NAME).await?;
    let port = service.spec.ports.first().map_or(0, |p| p.node_port);
    progress.note(&next_steps(node_ip, port, layout));
    Ok(())
}

/// Waits until all replicas are.
async fn available(api: &Api) {
    let mut changes = api.informers.get::<Deployment>().subscribe();
    while let Some(delta) = changes.recv().await {
        let demo = delta.object();
        if demo.metadata.name == NAME
            && demo.metadata.namespace == NAMESPACE
            && demo.status.available_replicas >= REPLICAS
        {
            return;
        }
    }
}

fn next_steps(node_ip: IpAddr, port: u16, layout: &Layout) -> String {
    let (context, address) = (layout.context(), SocketAddr::new(node_ip, port));
    let down = if layout.name() == DEFAULT_NAME {
        "cox down".to_owned()
    } else {
        format!("cox down --name {}", layout.name())
    };
    format!(
        "\nSee it:      curl http://{address}\n\
         Look around: kubectl --context {context} get pods -o wide\n\
         Scale it:    kubectl --context {context} scale deployment {NAME} --replicas 5\n\
         Stop it all: {down}"
    )
}

fn make_image(images: &runtime::images::Store) -> Result<(), runtime::images::Error> {
    let config = ContainerConfig {
        entrypoint: vec![PROGRAM.to_owned(), "demo-app".to_owned()],
        user: "65534:65534".to_owned(),
        ..Default::default()
    };
    import_rootfs(images, IMAGE, program_files(Path::new(PROGRAM))?, config).map(drop)
}

fn deployment() -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{
                        "name": NAME, "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                        "args": ["--port", PORT.to_string()],
                        "ports": [{"containerPort": PORT}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                        "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                    }],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {"type": "NodePort", "selector": {"app": NAME}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

/// The application itself: answers every request with the name of its pod.
pub fn serve(port: u16) -> anyhow::Result<ExitCode> {
    super::block_on_here(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
        let mut stop = std::pin::pin!(crate::services::interrupted());
        loop {
            let (stream, from) = tokio::select! {
                stopped = &mut stop => return stopped.map(|()| ExitCode::SUCCESS),
                accepted = listener.accept() => accepted?,
            };
            tokio::spawn(async move {
                let answer =
                    service_fn(move |request| async move { Ok::<_, Infallible>(greet(&request, from)) });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
    })
}

fn greet(request: &Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let text = format!(
        "Hello from {}!\nYou asked for {} from {}.\nThis container, like the cluster around it, is the cox binary.\n",
        host.to_string_lossy(),
        request.uri().path(),
        from.ip()
    );
    Response::new(Full::new(text.into()))
}
