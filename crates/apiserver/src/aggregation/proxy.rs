//! Passes a request on to the server of its group version, which is told who makes it, and the answer back; watches and
//! upgraded connections included. Follows `proxyHandler` and `transport.SetAuthProxyHeaders`.

use std::net::SocketAddr;
use std::time::Duration;

use apimachinery::Status;
use auth::UserInfo;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, Uri};
use rustls_pki_types::ServerName;
use store::Store;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::route::{Route, Service};
use crate::body::{self, Body, WireBody};
use crate::call::Call;
use crate::forward::{self, Sender};
use crate::pipeline::Payload;
use crate::webhook::connect::resolve;

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_EXTRA: &str = "x-remote-extra-";
/// All that says who the user is; only this server may say so.
pub const REMOTE: &str = "x-remote-";

/// A server that does not take a connection within this time is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn serve(call: &Call, payload: Payload, uri: &Uri, route: Route) -> Result<Response<Body>, Status> {
    match route {
        Route::InProcess(backend) => {
            let mut request = Request::new(body::read(payload.body).await?);
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = call.headers.clone();
            Ok(backend.handle(&call.user, request).await)
        }
        Route::Service(service) if !service.is_available => {
            Err(Status::service_unavailable("service unavailable"))
        }
        Route::Service(service) => {
            let unreachable =
                |why| Status::service_unavailable(format!("error trying to reach service: {why}"));
            let (address, sender) = connect(&call.core.store, &service, 0).await.map_err(unreachable)?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let request =
                forward::request(call, &address.to_string(), path, payload, remote_headers(&call.user))?;
            forward::exchange(sender, request).await.map_err(|error| unreachable(error.to_string()))
        }
    }
}

/// A connection to one of the Service's endpoints.
pub async fn connect(store: &Store, service: &Service, turn: usize) -> Result<(SocketAddr, Sender), String> {
    let Service { namespace, name, port, tls, .. } = service;
    let address = resolve(store, namespace, name, *port, turn).map_err(|error| error.to_string())?;
    let connecting = async {
        let config = tls.clone()?;
        let stream =
            TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let server =
            ServerName::try_from(format!("{name}.{namespace}.svc")).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(server, stream).await;
        let stream = stream.map_err(|error| format!("tls: {error}"))?;
        forward::handshake(hyper_util::rt::TokioIo::new(stream)).await.map_err(|error| error.to_string())
    };
    let sender = timeout(CONNECT_TIMEOUT, connecting).await;
    sender.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout"))).map(|sender| (address, sender))
}

/// A GET of the server's own.
pub fn get(
    address: SocketAddr,
    path: &str,
    accept: &str,
    user: &UserInfo,
) -> Result<Request<WireBody>, String> {
    let mut request = Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::ACCEPT, accept)
        .body(body::wire(body::full(Bytes::new())))
        .map_err(|error| error.to_string())?;
    request.headers_mut().extend(remote_headers(user));
    Ok(request)
}

fn remote_headers(user: &UserInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        // What no header can carry cannot be told.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    };
    put(REMOTE_USER, &user.name);
    if !user.uid.is_empty() {
        put(REMOTE_UID, &user.uid);
    }
    for group in &user.groups {
        put(REMOTE_GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::from_bytes(format!("{REMOTE_EXTRA}{}", escaped(key)).as_bytes());
        let Ok(name) = name else { continue };
        for value in values {
            put(name.clone(), value);
        }
    }
    headers
}

/// What may not stand in a header's name is percent-encoded (upstream: headerKeyEscape).
fn escaped(key: &str) -> String {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b);
    key.bytes().map(|b| if is_token(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_server_is_told_who_the_user_is() {
        let mut user = UserInfo::new("jane", ["dev"]);
        user.uid = "7".to_owned();
        user.extra.insert("example.com/a b".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
        let headers = remote_headers(&user);
        let all = |name: &str| -> Vec<_> {
            headers.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fa%20b"), ["1", "2"]);
    }
}
