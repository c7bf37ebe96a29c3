//! A component's own server, before an API server that knows users and decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::{Value, json};
use auth::UserInfo;
use client::certificate::Replaceable;
use client::zpages::Pages;
use http::{Method, Request};
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;

use super::fixture::Fixture;
use crate::body;
use crate::component::{AlwaysAllowed, Authentication, Authorization, Check, Config, Server, Trust};
use crate::features::Features;
use crate::listener::Answers;
use crate::pipeline::Peer;
use crate::upkeep::clusterauthenticationtrust as published;

/// How long the API server's word counts; longer than any test.
const TTL: Duration = Duration::from_secs(3600);

struct Component {
    server: Arc<Server>,
    authentication: Arc<Authentication>,
    is_well: Arc<AtomicBool>,
}

impl Component {
    /// As which identity it asks the API server, if it asks.
    fn new(api: Option<&Fixture>) -> Component {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let shown = Replaceable::new(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes());
        let reviewer = || {
            let user = UserInfo::new("system:kube-scheduler", [""; 0]);
            api.map(|api| api.server.in_process(user))
        };
        let authentication = Authentication::new(shown.expect("fits"), &Trust::default(), reviewer(), TTL);
        let authentication = Arc::new(authentication.expect("fits"));
        let paths = ["/healthz", "/livez", "/readyz"];
        let authorization =
            Authorization::new(AlwaysAllowed::parse(paths).expect("paths"), reviewer(), TTL, TTL);
        let is_well = Arc::new(AtomicBool::new(true));
        let seen = is_well.clone();
        let check = Check {
            name: "leaderElection",
            readiness_only: false,
            passes: Box::new(move || seen.load(Ordering::Relaxed)),
        };
        let server = Server::new(Config {
            authentication: authentication.clone(),
            authorization,
            checks: vec![check],
            configz: json!({"componentconfig": {"kind": "KubeSchedulerConfiguration"}}),
            figures: vec![Arc::new(client::QueueMetrics::default())],
            pages: Pages::new("kube-scheduler", Arc::new([("v".to_owned(), "2".to_owned())].into())),
            features: Features::default(),
            set_verbosity: None,
        });
        Component { server, authentication, is_well }
    }

    async fn ask(&self, request: http::request::Builder, chain: &[CertificateDer<'_>]) -> (u16, String) {
        let certificate = self.authentication.tls().load().client_certificate(chain);
        let request = request.body(body::empty()).expect("a request");
        let peer = Peer::Connection { certificate, address: None };
        let response = self.server.clone().answer(request, peer).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let request = Request::get(path);
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        self.ask(request, &[]).await
    }
}

/// An API server on which the service account `default/monitor` may read figures, and `default/default` may not, and their tokens.
async fn with_tokens() -> (Fixture, [String; 2]) {
    let api = Fixture::new().await;
    let role = json!({"metadata": {"name": "monitor"}, "rules": [{"nonResourceURLs": ["/metrics", "/statusz", "/flagz"], "verbs": ["get"]}]});
    let binding = json!({"metadata": {"name": "monitor"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "monitor"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "monitor"}]});
    let account = json!({"metadata": {"name": "monitor"}});
    api.check("POST /api/v1/namespaces/default/serviceaccounts", account, 201, json!({})).await;
    api.check("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", role, 201, json!({})).await;
    api.check("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, 201, json!({})).await;
    let account = UserInfo::new("system:serviceaccount:default:monitor", [""; 0]);
    api.until_allowed(account, "GET /metrics").await;
    let mut tokens = Vec::new();
    for name in ["monitor", "default"] {
        let path = format!("POST /api/v1/namespaces/default/serviceaccounts/{name}/token");
        let answer: Value = api.check(&path, json!({"spec": {}}), 201, json!({})).await;
        tokens.push(answer["status"]["token"].as_str().expect("a token").to_owned());
    }
    (api, tokens.try_into().expect("two"))
}

#[tokio::test]
async fn the_api_server_says_whose_token_it_is_and_what_they_may() {
    let (api, [monitor, other]) = with_tokens().await;
    let component = Component::new(Some(&api));
    let (code, page) = component.get("/metrics", Some(&monitor)).await;
    assert_eq!(code, 200, "{page}");
    for name in ["workqueue_depth", "process_open_fds", "kubernetes_build_info", "kubernetes_feature_enabled"]
    {
        assert!(page.contains(&format!("# TYPE {name} gauge")), "{name}");
    }
    let (code, status) = component.get("/metrics", Some(&other)).await;
    assert_eq!(code, 403);
    let denial = "User \\\"system:serviceaccount:default:default\\\" cannot get path \\\"/metrics\\\"";
    assert!(status.contains(denial), "{status}");
    let (code, page) = component.get("/statusz", Some(&monitor)).await;
    assert_eq!(code, 200, "{page}");
    assert!(page.ends_with("\nPaths: /configz /flagz /healthz /livez /metrics /readyz\n"), "{page}");
    let (code, page) = component.get("/flagz", Some(&monitor)).await;
    assert!(code == 200 && page.ends_with("\nv: 2\n"), "{code} {page}");
    assert_eq!(component.get("/flagz", Some(&other)).await.0, 403);
    assert_eq!(component.get("/configz", Some(&monitor)).await.0, 403);
    assert_eq!(component.get("/metrics", Some("nonsense")).await.0, 401);
    assert_eq!(component.get("/metrics", None).await.0, 403);
}

#[tokio::test]
async fn health_is_told_to_anybody_check_by_check() {
    let component = Component::new(None);
    let check = async |path: &str, expect: (u16, &str)| {
        let (code, body) = component.get(path, None).await;
        assert_eq!((code, body.as_str()), expect, "{path}");
    };
    check("/healthz", (200, "ok")).await;
    check("/livez?verbose", (200, "[+]ping ok\nlivez check passed\n")).await;
    check("/readyz?verbose", (200, "[+]leaderElection ok\n[+]shutdown ok\nreadyz check passed\n")).await;
    component.is_well.store(false, Ordering::Relaxed);
    let failed = "[-]leaderElection failed: reason withheld\n";
    check("/healthz", (500, &format!("{failed}healthz check failed\n"))).await;
    check("/livez", (200, "ok")).await;
    check("/readyz?exclude=leaderElection", (200, "ok")).await;
    let excluded = "[+]leaderElection excluded: ok\n[+]shutdown ok\n\
        warn: some health checks cannot be excluded: no matches for \"x\",\"y\"\nreadyz check passed\n";
    check("/readyz?verbose&exclude=y&exclude=leaderElection&exclude=x", (200, excluded)).await;
    // Nobody but administrators may ask for anything else, where nobody knows users.
    assert_eq!(component.get("/healthz/leaderElection", None).await.0, 403);
    assert_eq!(component.get("/metrics", Some("a")).await.0, 403);
    component.server.stopping();
    check(
        "/readyz?exclude=leaderElection",
        (500, "[+]leaderElection excluded: ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n"),
    )
    .await;
}

/// An authority, and a certificate of it.
fn certified(common_name: &str, organization: &str) -> (String, CertificateDer<'static>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"));
    let issuer = issuer.expect("an authority");
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, common_name);
    leaf.distinguished_name.push(DnType::OrganizationName, organization);
    let leaf = leaf.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
    (issuer.pem(), leaf.der().clone())
}

#[tokio::test]
async fn whom_the_cluster_believes_is_believed_as_soon_as_it_is_published() {
    let component = Component::new(None);
    let (clients, admin) = certified("admin", "system:masters");
    let (proxies, proxy) = certified("front-proxy-client", "");
    let ask = async |certificate: &CertificateDer<'static>, user: Option<&str>, method: Method| {
        let mut request = Request::builder().method(method).uri("/configz");
        if let Some(user) = user {
            request = request.header("x-remote-user", user).header("x-remote-group", "system:masters");
        }
        component.ask(request, std::slice::from_ref(certificate)).await.0
    };
    assert_eq!(ask(&admin, None, Method::GET).await, 401);
    let list = |item: &str| json!([item]).to_string();
    let data = BTreeMap::from([
        ("client-ca-file".to_owned(), clients),
        ("requestheader-client-ca-file".to_owned(), proxies),
        ("requestheader-username-headers".to_owned(), list("X-Remote-User")),
        ("requestheader-group-headers".to_owned(), list("X-Remote-Group")),
        ("requestheader-allowed-names".to_owned(), list("front-proxy-client")),
    ]);
    component.authentication.believe(&published::read(&data)).expect("fits");
    assert_eq!(ask(&admin, None, Method::GET).await, 200);
    assert_eq!(ask(&admin, None, Method::POST).await, 405);
    assert_eq!(ask(&proxy, Some("jane"), Method::GET).await, 200);
    assert_eq!(
        ask(&proxy, None, Method::GET).await,
        403,
        "a proxy that names nobody is nobody in particular"
    );
}
