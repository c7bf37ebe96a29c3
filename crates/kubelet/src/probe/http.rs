//! The HTTP probe: any status from 200 to 399 is well. Certificates are not checked, as upstream.

use std::sync::Arc;
use std::time::Duration;

use api::view::core::HttpGetAction;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes of a failing answer that are read to the end, so that the connection closes cleanly.
const BODY_BYTES_MAX: usize = 10 * 1024;

pub async fn get(action: &HttpGetAction, host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    let url = format!("{}://{host}:{port}{}", action.scheme.to_lowercase(), action.path);
    match tokio::time::timeout(timeout, request(action, host, port)).await {
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(why)) => Err(format!("Get {url:?}: {why}")),
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
    }
}

async fn request(action: &HttpGetAction, host: &str, port: u16) -> Result<StatusCode, String> {
    let stream =
        TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))?;
    if action.scheme != "HTTPS" {
        return exchange(action, host, port, stream).await;
    }
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    // A probe asks whether the server answers, not who it is.
    let config = tls::client_of_anybody().with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(action, host, port, stream).await
}

async fn exchange<S>(action: &HttpGetAction, host: &str, port: u16, stream: S) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let path = if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
    let mut request =
        Request::get(path).header(header::USER_AGENT, "kube-probe/1.36").header(header::ACCEPT, "*/*");
    if !action.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case("host")) {
        request = request.header(header::HOST, format!("{host}:{port}"));
    }
    for own in &action.http_headers {
        request = request.header(&own.name, &own.value);
    }
    let request =
        request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    // Whatever the body says does not change the verdict.
    drop(http_body_util::Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await);
    driver.abort();
    Ok(status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(text: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 1024];
            assert_ne!(stream.read(&mut request).await.expect("reads"), 0);
            stream.write_all(text.as_bytes()).await.expect("writes");
        });
        port
    }

    #[tokio::test]
    async fn the_status_decides() {
        let action = HttpGetAction { path: "/x".into(), scheme: "HTTP".into(), ..Default::default() };
        let second = Duration::from_secs(5);
        let port = answer("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(get(&action, "127.0.0.1", port, second).await, Ok(()));
        let port = answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(
            get(&action, "127.0.0.1", port, second).await,
            Err("HTTP probe failed with statuscode: 503".to_owned())
        );
        let port = answer("garbage\r\n\r\n").await;
        assert!(get(&action, "127.0.0.1", port, second).await.is_err());
    }
}
