//! Ingresses: class, addresses, warnings, and traffic from a port of the node to a pod, whatever changes meanwhile.

use std::net::SocketAddr;

use anyhow::ensure;
use e2e::{Cluster, Kubectl, Load, NODE_IP};

/// Of a cluster beside the default one, which all clusters of tests are.
const HTTP_PORT: u16 = 10081;
const HTTPS_PORT: u16 = 10444;
const SECURE_HOST: &str = "secure.example.org";
/// Changes of an Ingress while requests are made.
const CHANGES: usize = 10;
/// Requests that are no load, if fewer are made meanwhile.
const REQUESTS_MIN: usize = 50;

const OBJECTS: &str = include_str!("manifests/ingress.yaml");

#[test]
fn ingresses_lead_from_the_nodes_port_to_pods() -> anyhow::Result<()> {
    let cluster = Cluster::start(&["busybox-1"])?;
    let kubectl = cluster.kubectl()?;
    cluster
        .machine()
        .until("the class is there", || Ok(kubectl.run(&["get", "ingressclass", "cox"]).is_ok()))?;
    kubectl.apply(OBJECTS)?;
    kubectl.wait("pod/server", "condition=Ready")?;
    let class = kubectl.field("ingress/server", ".spec.ingressClassName")?;
    ensure!(class == "cox", "the default class is {class:?}");
    kubectl.wait_for_field("ingress/server", ".status.loadBalancer.ingress[0].ip", NODE_IP)?;
    cluster.machine().until("the Ingress leads to the pod", || {
        Ok(cluster.get(HTTP_PORT, "/by/path/").is_ok_and(|answer| answer.status == 200))
    })?;
    ensure!(cluster.get(HTTP_PORT, "/by/path/")?.body == "served\n");
    ensure!(cluster.get(HTTP_PORT, "/elsewhere")?.status == 404);
    let by_host =
        format!("timeout 5 wget -q -O - --header 'Host: www.example.org' http://{NODE_IP}:{HTTP_PORT}/");
    let answer = kubectl.run(&["exec", "server", "-c", "c", "--", "sh", "-c", &by_host])?;
    ensure!(answer == "served\n", "{answer}");
    websockets_go_through(&kubectl)?;
    nothing_is_lost_while_routes_and_certificates_change(&cluster, &kubectl)?;
    for reason in ["ServiceNotFound", "SecretNotFound"] {
        let events = format!("reason={reason},involvedObject.name=vain,type=Warning");
        cluster.machine().until("the warning is there", || {
            Ok(!kubectl.run(&["get", "events", "-o", "name", "--field-selector", &events])?.is_empty())
        })?;
    }
    kubectl.run(&["delete", "ingresses", "--all"])?;
    cluster
        .machine()
        .until("nothing is routed any more", || Ok(cluster.get(HTTP_PORT, "/by/path/")?.status == 404))?;
    kubectl.run(&["delete", "pods,services", "--all", "--now"])?;
    cluster.finish()
}

/// The back end agrees to another protocol and echoes from then on.
fn websockets_go_through(kubectl: &Kubectl) -> anyhow::Result<()> {
    const UPGRADE: &str = "GET /socket HTTP/1.1\\r\\nHost: socket.example.net\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n";
    let script = format!(
        "(printf '{UPGRADE}'; sleep 1; echo hello; sleep 1) | timeout 5 nc {NODE_IP} {HTTP_PORT}; true"
    );
    let answer = kubectl.run(&["exec", "server", "-c", "c", "--", "sh", "-c", &script])?;
    ensure!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("hello\n"), "{answer:?}");
    Ok(())
}

fn nothing_is_lost_while_routes_and_certificates_change(
    cluster: &Cluster,
    kubectl: &Kubectl,
) -> anyhow::Result<()> {
    let machine = cluster.machine();
    let shown = || {
        let ask = format!(
            "openssl s_client -connect {NODE_IP}:{HTTPS_PORT} -servername {SECURE_HOST} < /dev/null 2> /dev/null | \
             openssl x509 -noout -serial 2>&1"
        );
        Ok::<_, anyhow::Error>(machine.run("sh", &["-c", &ask])?.stdout)
    };
    let address = SocketAddr::new(NODE_IP.parse()?, HTTP_PORT);
    let load = Load::start(machine, address, &["/by/path/", "/by/path/"])?;
    let mut serials = vec![shown()?];
    for change in 0..CHANGES {
        let annotation = format!("changed={change}");
        kubectl.run(&["annotate", "ingress", "server", "--overwrite", &annotation])?;
        let path = format!(
            "[{{\"op\": \"add\", \"path\": \"/spec/rules/0/http/paths/1\", \"value\": {{\"path\": \"/{change}\", \
             \"pathType\": \"Prefix\", \"backend\": {{\"service\": {{\"name\": \"server\", \"port\": {{\"number\": 80}}}}}}}}}}]"
        );
        kubectl.run(&["patch", "ingress", "server", "--type=json", "-p", &path])?;
        if change % (CHANGES / 2) == 0 {
            new_certificate(cluster, kubectl)?;
            let known = serials.clone();
            machine.until("the new certificate is shown", || Ok(!known.contains(&shown()?)))?;
            serials.push(shown()?);
        }
    }
    load.stop()?.all_answered(REQUESTS_MIN)
}

/// Puts another certificate into the Secret that the Ingress names.
fn new_certificate(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let folder = cluster.scratch()?;
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (file("tls.crt"), file("tls.key"));
    let subject = format!("/CN={SECURE_HOST}");
    let alternative = format!("subjectAltName=DNS:{SECURE_HOST}");
    let asked =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let named = ["-subj", &subject, "-addext", &alternative, "-keyout", &key, "-out", &certificate];
    cluster.machine().run("openssl", &[&asked[..], &named[..]].concat())?.success()?;
    let (certificate, key) = (format!("--cert={certificate}"), format!("--key={key}"));
    let made = ["create", "secret", "tls", "secure", &certificate, &key, "--dry-run=client", "-o", "yaml"];
    let secret = kubectl.run(&made)?;
    kubectl.apply(&secret).map(drop)
}
