//! The gRPC probe: `grpc.health.v1.Health/Check` must say SERVING.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

pub async fn check(host: &str, port: u16, service: String, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(host, port, service.clone())).await {
        Err(_) => Err(format!("timeout: failed to connect service \"{host}:{port}\" within {timeout:?}")),
        Ok(Err(why)) => Err(format!("error: health rpc probe failed: {why}")),
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => Err(format!("service unhealthy (responded with {status:?})")),
    }
}

async fn ask(host: &str, port: u16, service: String) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| e.to_string())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service });
    let response = client.unary(request, path, codec).await.map_err(|status| status.message().to_owned())?;
    Ok(response.into_inner().status)
}
