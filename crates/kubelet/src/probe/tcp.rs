//! The TCP probe: a connection that opens is enough.

use std::time::Duration;

use super::undialed;

pub async fn connect(host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect((host, port))).await {
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
        Ok(Err(error)) => Err(undialed(host, port, &error)),
        Ok(Ok(_)) => Ok(()),
    }
}
