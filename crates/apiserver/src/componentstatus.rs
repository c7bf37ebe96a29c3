//! ComponentStatuses: the parts of the control plane, asked how they are whenever somebody wants to know. Follows
//! `registry/core/componentstatus`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::core::componentstatus;
use apimachinery::{GroupResource, Status};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::body::{self, Body};
use crate::call::Call;
use crate::core::Core;
use crate::draft::to_json;
use crate::forward::{self, Destination, Security};
use crate::kind::KindRef;
use crate::query::ListOptions;
use crate::selection::Selection;
use crate::view::ListMeta;
use crate::wire::Document;

/// A component that does not answer within this time is not well (upstream: `probe.defaultProbeTimeout`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The parts besides the store, and where they say how they are when they are processes of their own.
const PARTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];

/// Under this name the store is asked, whatever it is.
const STORE: &str = "etcd-0";

pub async fn serve(call: &Call, kind: &KindRef) -> Result<Response<Body>, Status> {
    let view = call.view(kind)?;
    if call.info.verb == "list" {
        let options = ListOptions::parse(&call.query, false)?;
        let selection = Selection::parse(kind, &options)?;
        let mut objects = Vec::new();
        for name in PARTS.map(|(name, _)| name).into_iter().chain([STORE]) {
            if selection.exact_name().is_none_or(|wanted| wanted == name) {
                objects.extend(ask(&call.core, name).await);
            }
        }
        let json = view.list(objects.into_iter(), &ListMeta::default()).collect();
        return call.respond(200, Document { type_name: view.type_name(true), json });
    }
    let not_found = || Status::not_found(&GroupResource::new("", "componentstatus"), &call.info.name);
    let object = ask(&call.core, &call.info.name).await.ok_or_else(not_found)?;
    call.respond(200, Document { type_name: view.type_name(false), json: vec![view.object(&object)] })
}

/// A component and how it is; none when there is no such component.
async fn ask(core: &Core, name: &str) -> Option<Bytes> {
    let health = match PARTS.iter().find(|(part, _)| *part == name) {
        // It would have ended the process.
        Some(_) if core.config.runs_control_plane => Ok(()),
        Some((_, port)) => match timeout(ANSWER_TIMEOUT, probe(*port)).await {
            Ok(health) => health,
            Err(_) => Err(format!("Get \"{}\": context deadline exceeded", url(*port))),
        },
        None if name == STORE => match core.store.is_followed() {
            true => Ok(()),
            false => Err("the members of etcd do not answer".to_owned()),
        },
        None => return None,
    };
    Some(to_json(&componentstatus::of(name, health)).into())
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}/healthz")
}

/// Asks a process on this machine, which makes its own certificate.
async fn probe(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |why: &dyn std::fmt::Display| format!("Get \"{}\": {why}", url(port));
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            failed(&format_args!("dial tcp {address}: connect: connection refused"))
        }
        _ => failed(&format_args!("dial tcp {address}: {error}")),
    })?;
    let to = Destination { address, security: Security::Anybody, path_and_query: "/healthz".to_owned() };
    let sender = forward::connect_on(stream, &to, None).await.map_err(|error| failed(&error))?;
    let request =
        Request::get(&to.path_and_query).header(HOST, address.to_string()).body(body::wire(body::empty()));
    let request = request.map_err(|error| failed(&error))?;
    let answer = forward::exchange(sender, (request, None)).await.map_err(|error| failed(&error))?;
    match answer.status().as_u16() {
        200 => Ok(()),
        code => Err(format!("unhealthy http status code: {code}")),
    }
}
