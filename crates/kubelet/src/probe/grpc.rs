//! The gRPC probe: `grpc.health.v1.Health/Check` must say SERVING.

use std::error::Error as _;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;

use super::bracketed;

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

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
fn name(status: i32) -> String {
    const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let known = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    known.map_or_else(|| status.to_string(), |name| (*name).to_owned())
}

fn refused(status: &tonic::Status) -> String {
    let why = status.message();
    if status.code() == tonic::Code::Unimplemented {
        return format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
        );
    }
    format!("error: health rpc probe failed: {why}")
}

pub async fn check(host: &str, port: u16, service: String, timeout: Duration) -> Result<(), String> {
    let host = &bracketed(host);
    match tokio::time::timeout(timeout, ask(host, port, service.clone())).await {
        Err(_) => Err(format!("timeout: failed to connect service \"{host}:{port}\" within {timeout:?}")),
        Ok(Err(why)) => Err(why),
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => Err(format!("service unhealthy (responded with {:?})", name(status))),
    }
}

async fn ask(host: &str, port: u16, service: String) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        format!("error: failed to connect service at \"{host}:{port}\": {why}")
    })?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service });
    let response = client.unary(request, path, codec).await.map_err(|status| refused(&status))?;
    Ok(response.into_inner().status)
}
