//! Doors to a node: logs, exec, attach, port-forward, and proxied HTTP. The request goes on to the kubelet (or the pod)
//! and both directions are passed through as they are; the streaming protocols end there.
//! Follows `LogREST`, `ExecREST`, `AttachREST`, `PortForwardREST` and the `proxy` connecters.

mod answer;
mod links;

use std::net::IpAddr;

use api::objectmeta::IS_NEGATIVE;
use api::resource;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, Status, Value};
use client::query::ports;
use http::header::{CACHE_CONTROL, HOST, HeaderName, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use crate::admit;
use crate::body::{self, Body};
use crate::call::Call;
use crate::conversion;
use crate::forward::{self, Destination, Security};
use crate::kind::KindRef;
use crate::pipeline::Payload;
use crate::query::Query;
use links::Links;

/// What a proxied server is told of the path it was reached by.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Where kubelets listen unless their Node says otherwise.
const KUBELET_PORT: u16 = 10250;

/// A refusal longer than this is no explanation.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

pub async fn serve(
    call: &mut Call,
    kind: &KindRef,
    payload: Payload,
    uri: Uri,
) -> Result<Response<Body>, Status> {
    if call.info.subresource != "log" {
        admit::connect(call, kind).await?;
    }
    let destination = match (kind.resource, call.info.subresource.as_str()) {
        (resource::PODS, "proxy") => return proxied(call, pod_proxy(call, &uri)?, payload, &uri).await,
        (resource::NODES, "proxy") => return proxied(call, node_proxy(call, &uri)?, payload, &uri).await,
        (resource::SERVICES, "proxy") => {
            return proxied(call, service_proxy(call, &uri)?, payload, &uri).await;
        }
        (resource::PODS, streaming) => match pod_stream(call, streaming)? {
            Some(destination) => destination,
            None => return nothing(),
        },
        _ => return Err(Status::path_not_found()),
    };
    let response = forward::forward(call, destination, payload, HeaderMap::new()).await?;
    if call.info.subresource == "log" && !response.status().is_success() {
        return Err(refusal(response).await?);
    }
    Ok(response)
}

/// The log of a pod that is nowhere yet.
fn nothing() -> Result<Response<Body>, Status> {
    let answer =
        Response::builder().status(StatusCode::NO_CONTENT).header(CACHE_CONTROL, "no-cache, private");
    answer.body(body::empty()).map_err(Status::internal)
}

/// The answer of whatever is proxied to, made to look as if all of it were found below the proxy's path.
async fn proxied(
    call: &Call,
    destination: Destination,
    payload: Payload,
    uri: &Uri,
) -> Result<Response<Body>, Status> {
    if let Some(location) = root_of_proxied(call, uri) {
        return moved(&location);
    }
    if payload.upgrade.is_some() {
        return forward::forward(call, destination, payload, HeaderMap::new()).await;
    }
    let links = Links {
        prefix: uri.path().strip_suffix(&call.info.tail).unwrap_or(uri.path()).to_owned(),
        server: destination.address.to_string(),
        asked_host: asked_host(call, uri).to_owned(),
    };
    let mut more = HeaderMap::new();
    if let Ok(path) = HeaderValue::from_str(&links.path_of(&call.info.tail)) {
        more.insert(FORWARDED_URI, path);
    }
    answer::through(&links, forward::forward(call, destination, payload, more).await?).await
}

/// This server, as the client calls it.
fn asked_host<'a>(call: &'a Call, uri: &'a Uri) -> &'a str {
    let header = call.headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or_default()
}

/// A kubelet's refusal to show a log, which is plain text, as the Status clients understand
/// (upstream: GenericHttpResponseChecker).
async fn refusal(response: Response<Body>) -> Result<Status, Status> {
    let code = response.status().as_u16();
    let text = body::read_at_most(response.into_body(), REFUSAL_BYTES_MAX).await?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Ok(match code {
        400 => Status::bad_request(text),
        404 => Status::failure(code, "NotFound", text),
        500 => Status::internal(text),
        code => Status::failure(code, "", text),
    })
}

/// Where a client that reads the root of what is proxied must go, so that relative links in it are right
/// (upstream: `proxyRedirectsforRootPath`).
fn root_of_proxied(call: &Call, uri: &Uri) -> Option<String> {
    let reads = matches!(call.method, Method::GET | Method::HEAD);
    let is_root = call.info.subresource == "proxy" && call.info.tail.is_empty();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (reads && is_root && !call.headers.contains_key(UPGRADE)).then(|| format!("{}/{query}", uri.path()))
}

fn moved(location: &str) -> Result<Response<Body>, Status> {
    let response = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(LOCATION, location);
    response.body(body::empty()).map_err(|error| Status::internal(error.to_string()))
}

fn proxied_path(call: &Call, uri: &Uri) -> String {
    let path = if call.info.tail.is_empty() { "/" } else { &call.info.tail };
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// The kubelet of a node, at its internal address.
fn kubelet(node: &Value, path_and_query: String) -> Result<Destination, Status> {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
    let address_of = |kind: &str| {
        let mut all = addresses.into_iter().flatten();
        all.find(|a| a["type"] == kind).and_then(|a| str_at(a, &["address"]).parse::<IpAddr>().ok())
    };
    let name = str_at(node, &["metadata", "name"]);
    let address = address_of("InternalIP").or_else(|| address_of("ExternalIP")).ok_or_else(|| {
        Status::internal(format!("no preferred addresses found; known addresses of node {name}: []"))
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(KUBELET_PORT);
    Ok(Destination { address: (address, port).into(), security: Security::Kubelet, path_and_query })
}

/// Where a pod's stream comes from; none while the pod has no node, and so nothing to show.
fn pod_stream(call: &Call, subresource: &str) -> Result<Option<Destination>, Status> {
    let info = &call.info;
    let not_found = || Status::not_found(&resource::PODS.group_resource(), &info.name);
    let pod = call.core.object(resource::PODS, &info.namespace, &info.name).ok_or_else(not_found)?;
    if subresource == "log" {
        check_log_options(&call.query, &info.name)?;
    }
    let container = match subresource {
        "portforward" => String::new(),
        _ => format!("/{}", container(call, &pod)?),
    };
    let node_name = str_at(&pod, &["spec", "nodeName"]);
    if node_name.is_empty() {
        return match subresource {
            "log" => Ok(None),
            _ => Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name))),
        };
    }
    let node = call.core.object(resource::NODES, "", node_name);
    let node = node.ok_or_else(|| Status::not_found(&resource::NODES.group_resource(), node_name))?;
    let (door, query) = match subresource {
        "log" => ("containerLogs", log_query(&call.query)),
        "exec" => ("exec", stream_query(&call.query)),
        "attach" => ("attach", stream_query(&call.query)),
        _ => ("portForward", port_query(&call.query)?),
    };
    let path = format!("/{door}/{}/{}{container}?{}", info.namespace, info.name, query.join("&"));
    kubelet(&node, path).map(Some)
}

/// Follows `ValidatePodLogOptions`.
fn check_log_options(query: &Query, pod: &str) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    for (option, least, why) in [("tailLines", 0, IS_NEGATIVE), ("limitBytes", 1, "must be greater than 0")] {
        if let Some(number) = query.number(option)?.filter(|number| *number < least) {
            errors.push(Error::invalid(&Path::new(option), number, why));
        }
    }
    let seconds = query.number("sinceSeconds")?;
    if seconds.is_some() && !query.text("sinceTime").is_empty() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(Error::forbidden(&Path::new("").key(""), why));
    } else if let Some(seconds) = seconds.filter(|seconds| *seconds < 1) {
        errors.push(Error::invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), pod, &errors))
}

/// The container asked for, or the only one. Follows `podutil.ValidatePodLogOptions` and `getContainerNames`.
fn container(call: &Call, pod: &Value) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| str_at(c, &["name"])).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = str_at(pod, &["metadata", "name"]);
    let asked = call.query.text("container");
    if !asked.is_empty() {
        let known = [&main, &init, &ephemeral].iter().any(|list| list.contains(&asked));
        let unknown = || Status::bad_request(format!("container {asked} is not valid for pod {pod_name}"));
        return if known { Ok(asked.to_owned()) } else { Err(unknown()) };
    }
    if let [only] = main.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut why =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(why))
}

fn log_query(query: &Query) -> Vec<String> {
    const PASSED: [&str; 8] = [
        "follow",
        "previous",
        "timestamps",
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    PASSED.iter().flat_map(|name| repeated(query, name)).collect()
}

/// Exec and attach options under the names the kubelet knows them by (upstream: streamParams).
fn stream_query(query: &Query) -> Vec<String> {
    const FLAGS: [(&str, &str); 4] =
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let flags = FLAGS.iter().filter(|(ours, _)| query.flag(ours)).map(|(_, theirs)| format!("{theirs}=1"));
    repeated(query, "command").into_iter().chain(flags).collect()
}

/// The ports to forward, in one value (upstream: streamParams and Convert_Slice_string_To_Slice_int32).
fn port_query(query: &Query) -> Result<Vec<String>, Status> {
    let ports = query.all("ports").flat_map(ports).collect::<Result<Vec<_>, _>>();
    let ports = ports.map_err(|why| Status::bad_request(format!("cannot convert to []int32: {why}")))?;
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    Ok(if list.is_empty() { Vec::new() } else { vec![format!("port={}", percent_encode(&list))] })
}

fn repeated(query: &Query, name: &str) -> Vec<String> {
    query.all(name).map(|value| format!("{name}={}", percent_encode(value))).collect()
}

fn percent_encode(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `[scheme:]name[:port]`, as proxy paths name objects: whether to speak TLS, the name, the port or nothing
/// (upstream: `SplitSchemeNamePort`).
fn split_name<'a>(what: &str, text: &'a str) -> Result<(bool, &'a str, &'a str), Status> {
    let parts = text.split(':').collect::<Vec<_>>();
    let (tls, name, port) = match parts.as_slice() {
        [name] => (false, *name, ""),
        ["" | "http", name, port] | [name, port] => (false, *name, *port),
        ["https", name, port] => (true, *name, *port),
        _ => (false, "", ""),
    };
    match name {
        "" => Err(Status::bad_request(format!("invalid {what} request {text:?}"))),
        name => Ok((tls, name, port)),
    }
}

/// A node's kubelet, or whatever listens on another port of the node (upstream: node `ResourceLocation`).
fn node_proxy(call: &Call, uri: &Uri) -> Result<Destination, Status> {
    let (tls, name, port) = split_name("node", &call.info.name)?;
    let node = call.core.object(resource::NODES, "", name);
    let node = node.ok_or_else(|| Status::not_found(&resource::NODES.group_resource(), name))?;
    let kubelet = kubelet(&node, proxied_path(call, uri))?;
    if port.is_empty() || parse_port(port)? == u64::from(kubelet.address.port()) {
        return Ok(kubelet);
    }
    destination(kubelet.address.ip(), parse_port(port)?, tls, kubelet.path_and_query)
}

fn pod_proxy(call: &Call, uri: &Uri) -> Result<Destination, Status> {
    let (tls, name, port) = split_name("pod", &call.info.name)?;
    let not_found = || Status::not_found(&resource::PODS.group_resource(), name);
    let pod = call.core.object(resource::PODS, &call.info.namespace, name).ok_or_else(not_found)?;
    let first_port = || pod.pointer("/spec/containers/0/ports/0/containerPort").and_then(Value::as_u64);
    let port = if port.is_empty() { first_port().unwrap_or(80) } else { parse_port(port)? };
    let address = str_at(&pod, &["status", "podIP"]);
    let address = address.parse().map_err(|_| Status::bad_request("address not allowed"))?;
    destination(address, port, tls, proxied_path(call, uri))
}

/// A Service is reached through one of its ready endpoints.
fn service_proxy(call: &Call, uri: &Uri) -> Result<Destination, Status> {
    let (tls, name, port) = split_name("service", &call.info.name)?;
    let unavailable = || Status::service_unavailable(format!("no endpoints available for service {name:?}"));
    let slices = api::catalogue::by_resource("discovery.k8s.io", "v1", resource::ENDPOINT_SLICES.plural)
        .ok_or_else(Status::path_not_found)?;
    let service = call.core.object(resource::SERVICES, &call.info.namespace, name);
    let service = service.ok_or_else(|| Status::not_found(&resource::SERVICES.group_resource(), name))?;
    let port_name = service_port_name(&service, port)?;
    let owned = |entry: &store::Entry| entry.meta.label("kubernetes.io/service-name") == Some(name);
    let page = call.core.store.range(slices.storage, Some(&call.info.namespace), None, None, 0, &owned);
    for entry in page.map_err(|gone| Status::expired(gone.to_string()))?.entries {
        let slice = conversion::decode(&entry.bytes);
        let ports = slice.get("ports").and_then(Value::as_array);
        let number = ports
            .into_iter()
            .flatten()
            .find(|p| str_at(p, &["name"]) == port_name)
            .and_then(|p| p["port"].as_u64());
        let endpoints = slice.get("endpoints").and_then(Value::as_array);
        let ready = |e: &&Value| e.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
        let address = endpoints
            .into_iter()
            .flatten()
            .find(ready)
            .and_then(|e| e.pointer("/addresses/0")?.as_str()?.parse().ok());
        if let (Some(number), Some(address)) = (number, address) {
            return destination(address, number, tls, proxied_path(call, uri));
        }
    }
    Err(unavailable())
}

/// The name of the Service's port that a path names by name or number; the first when it names none.
fn service_port_name(service: &Value, port: &str) -> Result<String, Status> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let number: Option<u64> = port.parse().ok();
    let matches =
        |p: &&Value| port.is_empty() || str_at(p, &["name"]) == port || p["port"].as_u64() == number;
    let found = ports.into_iter().flatten().find(matches);
    let name = str_at(service, &["metadata", "name"]);
    let found = found.ok_or_else(|| {
        Status::service_unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    Ok(str_at(found, &["name"]).to_owned())
}

fn parse_port(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))
}

fn destination(address: IpAddr, port: u64, tls: bool, path_and_query: String) -> Result<Destination, Status> {
    let port = u16::try_from(port).map_err(|_| Status::bad_request(format!("invalid port {port}")))?;
    if !is_global_unicast(address) {
        return Err(Status::bad_request("address not allowed"));
    }
    let security = if tls { Security::Anybody } else { Security::Plain };
    Ok(Destination { address: (address, port).into(), security, path_and_query })
}

/// Whether it may belong to a pod: not to this machine, nor to its link, where clouds keep their secrets
/// (upstream: `isProxyableIP`).
fn is_global_unicast(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !is_local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_pod_is_proxied_to() {
        let allowed = |address: &str| is_global_unicast(address.parse().expect("an address"));
        for address in ["10.0.0.1", "192.0.2.7", "fd00::1"] {
            assert!(allowed(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!allowed(address), "{address}");
        }
    }

    #[test]
    fn no_pod_sees_the_certificate_that_kubelets_see() {
        let security = |tls| {
            let address = "10.0.0.1".parse().expect("an address");
            destination(address, 443, tls, "/".to_owned()).map(|to| to.security)
        };
        assert_eq!((security(true), security(false)), (Ok(Security::Anybody), Ok(Security::Plain)));
    }

    #[test]
    fn stream_options_are_renamed_for_the_kubelet() {
        let query = Query::parse("command=sh&command=-c&command=a%20%26%20b&stdin=true&stdout=1&tty=false");
        assert_eq!(
            stream_query(&query).join("&"),
            "command=sh&command=-c&command=a%20%26%20b&input=1&output=1"
        );
    }

    #[test]
    fn ports_to_forward_are_one_value_for_the_kubelet() {
        let ports =
            |query: &str| port_query(&Query::parse(query)).map_err(|refused| (refused.code, refused.message));
        assert_eq!(ports("ports=80,81&ports=0"), Ok(vec!["port=80%2C81%2C0".to_owned()]));
        assert_eq!(ports(""), Ok(Vec::new()));
        let why = "cannot convert to []int32: strconv.ParseUint: parsing \"http\": invalid syntax";
        assert_eq!(ports("ports=80,http"), Err((400, why.to_owned())));
    }

    #[test]
    fn proxy_names_may_carry_scheme_and_port() {
        assert_eq!(split_name("pod", "web").expect("parses"), (false, "web", ""));
        assert_eq!(split_name("pod", "web:80").expect("parses"), (false, "web", "80"));
        assert_eq!(split_name("pod", "https:web:http").expect("parses"), (true, "web", "http"));
        for invalid in ["a:b:c:d", "ftp:web:80", ":80", "http::80", ""] {
            let refused = split_name("pod", invalid).expect_err("no name");
            assert_eq!(refused.message, format!("invalid pod request {invalid:?}"));
        }
    }
}
