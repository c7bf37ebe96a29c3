//! Plugins on real sockets: who is taken in, who is told why not, and that nobody waits for another.

use std::sync::Mutex;

use csi::pluginregistration::registration_server::{Registration, RegistrationServer};
use csi::pluginregistration::{InfoRequest, RegistrationStatus, RegistrationStatusResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Request;
use tonic::transport::Server;

use super::*;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says who it is, and passes on what the kubelet says.
struct Plugin {
    info: PluginInfo,
    told: mpsc::UnboundedSender<RegistrationStatus>,
}

#[async_trait]
impl Registration for Plugin {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        self.told.send(request.into_inner()).map_err(|_| Status::internal("the test has ended"))?;
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Notes what happens to plugins, and refuses those of version 0.
struct Notes(mpsc::UnboundedSender<String>, Mutex<Option<String>>);

impl Notes {
    fn tell(&self, what: &str, name: &str, endpoint: &Path) {
        let socket = endpoint.file_name().and_then(|name| name.to_str()).expect("a name");
        self.0.send(format!("{what} {name} at {socket}")).expect("the test listens");
    }
}

#[async_trait]
impl PluginHandler for Notes {
    fn kind(&self) -> &'static str {
        "Known"
    }

    fn validate(&self, info: &PluginInfo, _: &Path) -> Result<(), String> {
        match info.supported_versions.iter().any(|version| version == "0") {
            true => Err("too old".to_owned()),
            false => Ok(()),
        }
    }

    async fn register(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        if let Some(why) = self.1.lock().expect("no panic").take() {
            return Err(why);
        }
        self.tell("new", &info.name, endpoint);
        Ok(())
    }

    async fn deregister(&self, name: &str, endpoint: &Path) {
        self.tell("gone", name, endpoint);
    }
}

/// A registry that is followed, in a folder of its own.
struct Node {
    root: tempfile::TempDir,
    notes: mpsc::UnboundedReceiver<String>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// The first attempt of a plugin to register fails for a reason.
    fn new(refusal: Option<&str>) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join(csi::REGISTRY_DIR)).expect("made");
        let (tell, notes) = mpsc::unbounded_channel();
        let handler = Notes(tell, Mutex::new(refusal.map(str::to_owned)));
        let registry = Registry::new(root.path(), vec![Arc::new(handler)]);
        Node { root, notes, tasks: vec![tokio::spawn(registry.run())] }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.root.path().join(csi::REGISTRY_DIR).join(name)
    }

    /// What the kubelet tells the plugin that serves a socket.
    fn plugin(
        &mut self,
        kind: &str,
        version: &str,
        socket: &str,
    ) -> mpsc::UnboundedReceiver<RegistrationStatus> {
        let (told, statuses) = mpsc::unbounded_channel();
        let supported_versions = vec![version.to_owned()];
        let info =
            PluginInfo { r#type: kind.into(), name: "p".into(), endpoint: String::new(), supported_versions };
        let listener = UnixListener::bind(self.socket(socket)).expect("listens");
        let server = Server::builder().add_service(RegistrationServer::new(Plugin { info, told }));
        let serve = server.serve_with_incoming(UnixListenerStream::new(listener));
        self.tasks.push(tokio::spawn(async move { serve.await.expect("serves") }));
        statuses
    }

    async fn expect(&mut self, note: &str) {
        let next = tokio::time::timeout(PATIENCE, self.notes.recv()).await.expect("in time");
        assert_eq!(next.as_deref(), Some(note));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn next(statuses: &mut mpsc::UnboundedReceiver<RegistrationStatus>) -> RegistrationStatus {
    tokio::time::timeout(PATIENCE, statuses.recv()).await.expect("in time").expect("told")
}

#[tokio::test]
async fn a_plugin_is_registered_until_its_socket_is_gone() {
    let mut node = Node::new(None);
    let mut told = node.plugin("Known", "1", "a.sock");
    node.expect("new p at a.sock").await;
    assert!(next(&mut told).await.plugin_registered);
    fs::remove_file(node.socket("a.sock")).expect("removed");
    node.expect("gone p at a.sock").await;
}

#[tokio::test]
async fn plugins_may_have_folders_of_their_own() {
    let mut node = Node::new(None);
    // Made while the registry is followed, each with what is in it.
    fs::create_dir_all(node.socket("vendor/driver")).expect("made");
    let _deep = node.plugin("Known", "1", "vendor/driver/a.sock");
    node.expect("new p at a.sock").await;
    fs::rename(node.socket("vendor/driver"), node.root.path().join("aside")).expect("renamed");
    node.expect("gone p at a.sock").await;
    let _unseen = UnixListener::bind(node.root.path().join("aside/b.sock")).expect("listens");
    fs::remove_file(node.root.path().join("aside/b.sock")).expect("removed");
    fs::rename(node.root.path().join("aside"), node.socket("back")).expect("renamed");
    node.expect("new p at a.sock").await;
    fs::remove_dir_all(node.socket("back")).expect("removed");
    node.expect("gone p at a.sock").await;
}

#[tokio::test]
async fn what_begins_with_a_dot_is_no_plugin() {
    let mut node = Node::new(None);
    fs::create_dir(node.socket(".folder")).expect("made");
    for hidden in [".a.sock", ".folder/a.sock"] {
        let _ = node.plugin("Known", "1", hidden);
    }
    let _known = node.plugin("Known", "1", "b.sock");
    node.expect("new p at b.sock").await;
    fs::rename(node.socket(".a.sock"), node.socket("c.sock")).expect("renamed");
    node.expect("new p at c.sock").await;
}

#[tokio::test]
async fn the_one_before_is_let_go_before_another_takes_its_path() {
    let mut node = Node::new(None);
    let _first = node.plugin("Known", "1", "a.sock");
    node.expect("new p at a.sock").await;
    // Renamed onto the first, so that the path is never without a socket.
    let _second = node.plugin("Known", "1", "b.sock");
    node.expect("new p at b.sock").await;
    fs::rename(node.socket("b.sock"), node.socket("a.sock")).expect("renamed");
    let mut left = vec!["gone p at a.sock", "gone p at b.sock", "new p at a.sock"];
    while !left.is_empty() {
        let note = tokio::time::timeout(PATIENCE, node.notes.recv()).await.expect("in time").expect("told");
        let at = left.iter().position(|expected| *expected == note).expect("expected");
        assert!(note != "new p at a.sock" || !left.contains(&"gone p at a.sock"), "too early");
        left.remove(at);
    }
}

#[tokio::test]
async fn who_is_refused_is_told_why_and_keeps_nobody_waiting() {
    let mut node = Node::new(None);
    // Answers nobody, ever.
    let _silent = UnixListener::bind(node.socket("silent.sock")).expect("listens");
    let mut of_no_kind = node.plugin("Strange", "1", "strange.sock");
    let mut old = node.plugin("Known", "0", "old.sock");
    let _known = node.plugin("Known", "1", "a.sock");
    node.expect("new p at a.sock").await;
    let socket = node.socket("strange.sock");
    let refusal = |error: String| RegistrationStatus { plugin_registered: false, error };
    let why = format!(
        "RegisterPlugin error -- no handler registered for plugin type: Strange at socket {}",
        socket.display()
    );
    assert_eq!(next(&mut of_no_kind).await, refusal(why));
    let why = "RegisterPlugin error -- plugin validation failed with err: too old";
    assert_eq!(next(&mut old).await, refusal(why.to_owned()));
}

#[tokio::test]
async fn who_was_refused_is_asked_again() {
    let mut node = Node::new(Some("not yet"));
    let mut told = node.plugin("Known", "1", "a.sock");
    let refused = next(&mut told).await;
    assert_eq!(refused.error, "RegisterPlugin error -- plugin registration failed with err: not yet");
    node.expect("new p at a.sock").await;
    assert!(next(&mut told).await.plugin_registered);
}
