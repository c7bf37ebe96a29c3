//! The HTTP probe: any status from 200 to 399 is well. Certificates are not checked, as upstream. A redirect within the
//! host is followed, one to another host is well with a warning (follows `pkg/probe/http`).

use std::sync::Arc;
use std::time::Duration;

use api::view::core::HttpGetAction;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{bracketed, undialed};

/// Bytes of an answer's body that are read (upstream's `maxRespBodyLength`).
const BODY_BYTES_MAX: usize = 10 * 1024;

/// Requests of one probe, each but the first sent by the answer before (Go's `defaultCheckRedirect`).
const REQUESTS_MAX: usize = 10;

/// What was answered, as far as a probe asks.
struct Answer {
    status: StatusCode,
    location: String,
    body: String,
}

/// Whether the container is well, and what to warn of if it is.
pub async fn get(
    action: &HttpGetAction,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<Option<String>, String> {
    let host = bracketed(host);
    let slash = if action.path.starts_with('/') { "" } else { "/" };
    let url = format!("{}://{host}:{port}{slash}{}", action.scheme.to_lowercase(), action.path);
    match tokio::time::timeout(timeout, follow(action, &url)).await {
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(why)) => Err(format!("Get {url:?}: {why}")),
        Ok(Ok(Answer { status, body, .. })) => match status.as_u16() {
            200..300 => Ok(None),
            300..400 => Ok(Some(format!("Probe terminated redirects, Response body: {body}"))),
            status => Err(format!("HTTP probe failed with statuscode: {status}")),
        },
    }
}

/// The first answer that sends to nowhere, or to another host.
async fn follow(action: &HttpGetAction, url: &str) -> Result<Answer, String> {
    let mut at: Uri = url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
    for _ in 0..REQUESTS_MAX {
        let answer = request(action, &at).await?;
        match redirect(&at, &answer) {
            Some(next) if next.host() == at.host() => at = next,
            _ => return Ok(answer),
        }
    }
    Err(format!("stopped after {REQUESTS_MAX} redirects"))
}

/// Where an answer sends its reader to (RFC 3986, section 5.2, without `..`, which servers take as well).
fn redirect(at: &Uri, answer: &Answer) -> Option<Uri> {
    let location = answer.location.as_str();
    if !matches!(answer.status.as_u16(), 301..=303 | 307 | 308) || location.is_empty() {
        return None;
    }
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = match location.as_bytes() {
        _ if location.contains("://") => location.to_owned(),
        [b'/', b'/', ..] => format!("{scheme}:{location}"),
        [b'/', ..] => format!("{scheme}://{authority}{location}"),
        [b'?', ..] => format!("{scheme}://{authority}{}{location}", at.path()),
        _ => format!("{scheme}://{authority}{folder}/{location}"),
    };
    whole.parse().ok()
}

async fn request(action: &HttpGetAction, url: &Uri) -> Result<Answer, String> {
    let secure = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| undialed(host, port, &error))?;
    if !secure {
        return exchange(action, url, stream).await;
    }
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    // A probe asks whether the server answers, not who it is.
    let config = tls::client_of_anybody().with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(action, url, stream).await
}

async fn exchange<S>(action: &HttpGetAction, url: &Uri, stream: S) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request =
        Request::get(path).header(header::USER_AGENT, "kube-probe/1.36").header(header::ACCEPT, "*/*");
    if !action.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case("host")) {
        request = request.header(header::HOST, url.authority().map_or("", |authority| authority.as_str()));
    }
    for own in &action.http_headers {
        request = request.header(&own.name, &own.value);
    }
    let request =
        request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let answer = read(response).await;
    driver.abort();
    Ok(answer)
}

/// What the body says does not change the verdict, so one that is cut off is no failure.
async fn read(response: Response<Incoming>) -> Answer {
    let status = response.status();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.unwrap_or_default().to_owned();
    let mut body = Vec::new();
    let mut rest = response.into_body();
    while body.len() < BODY_BYTES_MAX
        && let Some(Ok(frame)) = rest.frame().await
    {
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    body.truncate(BODY_BYTES_MAX);
    Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each request, whose path must be the one expected, the next of these answers.
    async fn answer(answers: Vec<(&'static str, String)>) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for (path, text) in answers {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.expect("reads");
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                assert!(request.starts_with(&format!("GET {path} ")), "{request}");
                stream.write_all(text.as_bytes()).await.expect("writes");
            }
        });
        port
    }

    async fn check(path: &str, answers: Vec<(&'static str, String)>, expect: Result<Option<&str>, &str>) {
        let action = HttpGetAction { path: path.into(), scheme: "HTTP".into(), ..Default::default() };
        let port = answer(answers).await;
        let found = get(&action, "127.0.0.1", port, Duration::from_secs(60)).await;
        let found = found.as_ref().map(Option::as_deref).map_err(String::as_str);
        match (found, expect) {
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{found}"),
            (found, expect) => assert_eq!(found, expect),
        }
    }

    fn plain(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    }

    fn sent_to(location: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nlook")
    }

    #[tokio::test]
    async fn the_status_decides() {
        check("/x", vec![("/x", plain("204 None"))], Ok(None)).await;
        check("x?y", vec![("/x?y", plain("503 Busy"))], Err("HTTP probe failed with statuscode: 503")).await;
        check("/x", vec![("/x", "garbage\r\n\r\n".to_owned())], Err("Get \"http://127.0.0.1:")).await;
    }

    #[tokio::test]
    async fn a_redirect_within_the_host_is_followed_and_one_to_another_host_is_warned_of() {
        let warning = Ok(Some("Probe terminated redirects, Response body: look"));
        let failed = Err("HTTP probe failed with statuscode: 500");
        check("/a/b", vec![("/a/b", sent_to("/c")), ("/c", plain("500 Bad"))], failed).await;
        check(
            "/a/b",
            vec![("/a/b", sent_to("c")), ("/a/c", sent_to("?d")), ("/a/c?d", plain("200 OK"))],
            Ok(None),
        )
        .await;
        check("/a", vec![("/a", sent_to("http://0.0.0.0/"))], warning).await;
        check("/a", vec![("/a", sent_to("//elsewhere/b"))], warning).await;
        check("/a", vec![("/a", sent_to(""))], warning).await;
        let endless = (0..REQUESTS_MAX).map(|_| ("/a", sent_to("/a"))).collect();
        check("/a", endless, Err("stopped after 10 redirects")).await;
    }
}
