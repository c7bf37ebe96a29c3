//! The group as a client sees it, with kubelets whose answers are made up.

use std::sync::atomic::{AtomicUsize, Ordering};

use apimachinery::json;
use client::transport::ResponseFuture;
use client::{CancellationToken, Client, Informers, Transport};

use super::*;

/// An API server with a node and a pod, whose kubelet has used another half second of processor time at each question.
#[derive(Default)]
struct Cluster {
    asked: AtomicUsize,
}

impl Transport for Cluster {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        let path = request.uri().path().to_owned();
        let is_watch = request.uri().query().unwrap_or_default().contains("watch=");
        Box::pin(async move {
            if is_watch {
                std::future::pending::<()>().await;
            }
            let text = match path.as_str() {
                "/api/v1/nodes" => {
                    list("NodeList", json!({"metadata": {"name": "n1", "labels": {"a": "b"}}}))
                }
                "/api/v1/pods" => list("PodList", pod()),
                _ => self.figures(),
            };
            Ok(Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()))
        })
    }
}

fn list(kind: &str, item: Value) -> String {
    json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [item]})
        .to_string()
}

fn pod() -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}})
}

impl Cluster {
    fn figures(&self) -> String {
        let round = self.asked.fetch_add(1, Ordering::SeqCst);
        let (cpu, at) = (round as f64 / 2.0, round * 1000);
        let labels = "{container=\"main\",namespace=\"shop\",pod=\"web\"}";
        format!(
            "node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 2048 {at}\n\
             container_cpu_usage_seconds_total{labels} {cpu} {at}\n\
             container_memory_working_set_bytes{labels} 1024 {at}\n"
        )
    }
}

async fn server(cluster: &Arc<Cluster>) -> Arc<MetricsServer> {
    let client = Client::new(cluster.clone(), "test");
    let informers = Informers::new(client.clone(), CancellationToken::new());
    let server = MetricsServer::new(client, &informers, CancellationToken::new());
    server.nodes.synced().await;
    server.pods.synced().await;
    server
}

async fn ask(server: &Arc<MetricsServer>, path: &str, accept: &str) -> (u16, Value) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Bytes::new()).expect("a request");
    let response = server.answer(&request).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).expect("is JSON"))
}

const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";

#[tokio::test(start_paused = true)]
async fn the_first_question_is_answered_after_two_rounds() {
    let server = server(&Arc::default()).await;
    let (code, node) = ask(&server, &format!("{ROOT}/nodes/n1"), "application/json").await;
    assert_eq!((code, &node["kind"]), (200, &json!("NodeMetrics")));
    assert_eq!(node["usage"], json!({"cpu": "500m", "memory": "2Ki"}));
    assert_eq!((&node["window"], &node["metadata"]["labels"]), (&json!("1s"), &json!({"a": "b"})));
    let (_, pods) = ask(&server, &format!("{ROOT}/namespaces/shop/pods"), "application/json").await;
    assert_eq!(pods["kind"], "PodMetricsList");
    let expect = json!([{"name": "main", "usage": {"cpu": "500m", "memory": "1Ki"}}]);
    assert_eq!(pods["items"][0]["containers"], expect);
}

#[tokio::test(start_paused = true)]
async fn lists_are_selected_and_tables_made() {
    let server = server(&Arc::default()).await;
    let count = async |query: &str| {
        let (_, list) = ask(&server, &format!("{ROOT}/pods?{query}"), "application/json").await;
        list["items"].as_array().map(Vec::len)
    };
    assert_eq!(count("labelSelector=app%3Dweb").await, Some(1));
    assert_eq!(count("labelSelector=app%3Dother").await, Some(0));
    assert_eq!(count("fieldSelector=metadata.name!%3Dweb").await, Some(0));
    assert_eq!(count("fieldSelector=spec.nodeName%3Dn1").await, None);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, table) = ask(&server, &format!("{ROOT}/pods"), accept).await;
    assert_eq!(table["rows"][0]["cells"], json!(["web", "500m", "1Ki", "1s"]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_found() {
    let server = server(&Arc::default()).await;
    let (code, status) = ask(&server, &format!("{ROOT}/namespaces/shop/pods/x"), "").await;
    assert_eq!((code, &status["message"]), (404, &json!("pods.metrics.k8s.io \"shop/x\" not found")));
    assert_eq!(ask(&server, &format!("{ROOT}/nothing"), "").await.0, 404);
    assert_eq!(ask(&server, &format!("{ROOT}/pods?watch=true"), "").await.0, 405);
    assert_eq!(ask(&server, ROOT, "").await.1["resources"][1]["kind"], "PodMetrics");
}

#[tokio::test(start_paused = true)]
async fn kubelets_are_asked_only_while_somebody_wants_to_know() {
    let cluster = Arc::<Cluster>::default();
    let server = server(&cluster).await;
    assert_eq!(cluster.asked.load(Ordering::SeqCst), 0);
    ask(&server, &format!("{ROOT}/nodes"), "").await;
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(
        cluster.asked.load(Ordering::SeqCst),
        6,
        "two rounds, and four until nobody asked for a minute"
    );
}
