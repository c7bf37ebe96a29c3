//! A plugin in use: its connection lives on a thread of its own, with which whoever reads or writes the store, who
//! cannot wait as a task does, speaks over a channel. Follows `kmsv2PluginProbe` and `envelopeTransformer`.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::sleep_until;

use super::Settings;
use super::client::Client;
use super::envelope::{Source, Wrapped};
use super::metrics::Metrics;
use super::probe::{self, Next, State};
use super::proto::{DecryptRequest, EncryptRequest, HKDF_SHA256_XNONCE_AES_GCM_SEED};
use crate::metadata::{Random, new_uid};
use crate::random;

/// Sources that were unwrapped are kept, as many as there are keys and restarts of servers that wrote what is stored;
/// beyond this number all are unwrapped anew.
const SOURCES_MAX: usize = 4096;

/// Tells whoever asked.
type Answer<T> = Box<dyn FnOnce(Result<T, String>) + Send>;

/// What a thread of a plugin is asked to do.
enum Command {
    Unwrap(Wrapped, Answer<Source>),
    /// To find out how the plugin is, unless that was found out just now.
    Check(Answer<()>),
}

/// What is known of a plugin.
#[derive(Debug, Default)]
struct Shared {
    state: ArcSwapOption<State>,
    sources: Mutex<HashMap<Wrapped, Arc<Source>>>,
}

/// A way to a plugin. Its thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub name: Arc<str>,
    /// What it writes begins with this.
    pub prefix: Arc<str>,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
}

impl Plugin {
    /// Starts its thread. The plugin itself may come later.
    pub fn start(settings: Settings, metrics: Arc<Metrics>) -> std::io::Result<Plugin> {
        let (commands, received) = unbounded_channel();
        let shared = Arc::<Shared>::default();
        let (name, prefix) =
            (Arc::from(settings.name.as_str()), format!("k8s:enc:kms:v2:{}:", settings.name));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let known = shared.clone();
        std::thread::Builder::new().name("kms".to_owned()).spawn(move || {
            runtime.block_on(async {
                let client = Client::new(&settings, metrics.clone());
                let keeper =
                    Keeper { client, metrics, settings, shared: known, version: String::new(), found: None };
                keeper.run(received).await;
            });
        })?;
        Ok(Plugin { name, prefix: prefix.into(), shared, commands })
    }

    /// How the plugin is now, or was a moment ago.
    pub async fn check(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        // Whoever does not wait any more needs no answer.
        self.ask(Command::Check(Box::new(|found| drop(answer.send(found)))))?;
        answered.await.unwrap_or_else(|_| Err(GONE.to_owned()))
    }

    /// As `check`, for who cannot wait as a task does.
    pub fn check_now(&self) -> Result<(), String> {
        self.wait_for(Command::Check)
    }

    pub fn seal(&self, place: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
        let state = self.shared.state.load_full().ok_or("got unexpected nil transformer")?;
        if !state.may_write(Instant::now()) {
            let key = probe::hash(&state.wrapped.key_id);
            return Err(format!("encryptedDEKSource with keyID hash {key:?} expired"));
        }
        Ok([self.prefix.as_bytes(), &state.wrapped.encode(state.source.seal(place, data))].concat())
    }

    /// What follows the prefix, and whether it would be written with the same key now.
    pub fn open(&self, place: &[u8], data: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let (wrapped, sealed) = Wrapped::decode(data).map_err(|error| error.to_string())?;
        let state = self.shared.state.load_full().ok_or("got unexpected nil transformer")?;
        let source = self.source(&wrapped)?;
        let opened = source.open(place, &sealed).map_err(|error| error.to_string())?;
        let is_fresh =
            wrapped.key_id == state.wrapped.key_id && wrapped.source_type == HKDF_SHA256_XNONCE_AES_GCM_SEED;
        Ok((opened, is_fresh))
    }

    /// How many sources of keys are known in the clear.
    pub fn known_sources(&self) -> usize {
        self.shared.sources.lock().len()
    }

    fn source(&self, wrapped: &Wrapped) -> Result<Arc<Source>, String> {
        if let Some(source) = self.shared.sources.lock().get(wrapped) {
            return Ok(source.clone());
        }
        let source = Arc::new(self.wait_for(|answer| Command::Unwrap(wrapped.clone(), answer))?);
        self.shared.remember(wrapped.clone(), source.clone());
        Ok(source)
    }

    /// Holds up this thread until there is an answer.
    fn wait_for<T: Send + 'static>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, String> {
        let (answer, answered) = mpsc::channel();
        self.ask(command(Box::new(move |found| drop(answer.send(found)))))?;
        on_this_thread(|| answered.recv()).map_err(|_| GONE)?
    }

    fn ask(&self, command: Command) -> Result<(), String> {
        self.commands.send(command).map_err(|_| GONE.to_owned())
    }
}

const GONE: &str = "the plugin's thread has ended";

/// Waits without keeping the runtime's other tasks from running, if there is one that can do so.
fn on_this_thread<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
        _ => wait(),
    }
}

impl Shared {
    fn remember(&self, wrapped: Wrapped, source: Arc<Source>) {
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES_MAX {
            sources.clear();
        }
        sources.insert(wrapped, source);
    }
}

/// What was found of a plugin's health, and when.
type Found = (Instant, Result<(), String>);

/// Works on a plugin's thread: follows how it is, and carries commands out.
struct Keeper {
    client: Client,
    metrics: Arc<Metrics>,
    settings: Settings,
    shared: Arc<Shared>,
    /// The version that the plugin named first.
    version: String,
    found: Option<Found>,
}

impl Keeper {
    /// Until nobody has a way to it any more.
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Check(answer)) => answer(self.checked_lately().await),
                    Some(Command::Unwrap(wrapped, answer)) => answer(self.unwrap(wrapped).await),
                },
                () = sleep_until(next) => {
                    let found = self.check().await;
                    next = tokio::time::Instant::now() + probe::interval(found.is_ok());
                }
            }
        }
    }

    async fn checked_lately(&mut self) -> Result<(), String> {
        if let Some((at, found)) = &self.found
            && at.elapsed() < probe::counts_for(found.is_ok())
        {
            return found.clone();
        }
        self.check().await
    }

    async fn check(&mut self) -> Result<(), String> {
        let found = self.ask_status().await;
        if let Err(error) = &found {
            tracing::warn!(name = self.settings.name, error, "a KMS plugin failed its health check");
        }
        self.found = Some((Instant::now(), found.clone()));
        found
    }

    async fn ask_status(&mut self) -> Result<(), String> {
        let name = self.settings.name.clone();
        let asked = Instant::now();
        let answer = self.client.status().await.map_err(|status| {
            let why = told(&status);
            format!(
                "failed to perform status section of the healthz check for KMS Provider {name}, error: {why}"
            )
        })?;
        let state = self.shared.state.load_full();
        let judgement = probe::judge(&answer, state.as_deref(), &mut self.version);
        if let Some(why) = judgement.invalid_key_id {
            self.metrics.invalid_key_id(&name, why);
        }
        let mut errors = judgement.errors;
        match (judgement.next, state) {
            (Some(Next::Confirm), Some(state)) => {
                let state = State::until(state.source.clone(), state.wrapped.clone(), asked);
                self.shared.state.store(Some(Arc::new(state)));
            }
            (Some(Next::Rotate(key_id)), _) => errors.extend(self.rotate(&key_id, asked).await.err()),
            _ => {}
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(format!("kmsv2 Provider {name} is not healthy, error: {}", errors[0])),
            _ => Err(format!("kmsv2 Provider {name} is not healthy, error: [{}]", errors.join(", "))),
        }
    }

    /// Has a new seed wrapped. Whatever goes wrong leaves the old one as it is.
    async fn rotate(&self, key_id: &str, asked: Instant) -> Result<(), String> {
        let uid = uid();
        let seed = Source::random_seed();
        let failed = |why: String| format!("failed to rotate DEK uid={uid:?}, useSeed=true, errGen={why}");
        let request = EncryptRequest { plaintext: seed.clone(), uid: uid.clone() };
        let answer = self.client.encrypt(request).await;
        let answer =
            answer.map_err(|status| failed(format!("failed to encrypt DEK, error: {}", told(&status))))?;
        let wrapped = Wrapped::seed(answer).map_err(|error| failed(error.to_string()))?;
        if wrapped.key_id != key_id {
            let (status, encrypt) = (probe::hash(key_id), probe::hash(&wrapped.key_id));
            return Err(failed(format!("<nil>, statusKeyIDHash={status:?}, encryptKeyIDHash={encrypt:?}")));
        }
        let source = Source::new(wrapped.source_type, seed).map_err(|error| failed(error.to_string()))?;
        let (source, wrapped) = (Arc::new(source), Arc::new(wrapped));
        self.shared.remember((*wrapped).clone(), source.clone());
        self.shared.state.store(Some(Arc::new(State::until(source, wrapped, asked))));
        Ok(())
    }

    async fn unwrap(&self, wrapped: Wrapped) -> Result<Source, String> {
        let request = DecryptRequest {
            ciphertext: wrapped.source,
            uid: uid(),
            key_id: wrapped.key_id,
            annotations: wrapped.annotations,
        };
        let answer = self.client.decrypt(request).await;
        let answer = answer.map_err(|status| format!("failed to decrypt DEK, error: {}", told(&status)))?;
        Source::new(wrapped.source_type, answer.plaintext).map_err(|error| error.to_string())
    }
}

/// By which a call is known in the plugin's logs.
fn uid() -> String {
    let random: Random = Arc::new(random::fill);
    new_uid(&random)
}

/// As Go words a failed call.
fn told(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::TestPlugin;
    use super::*;

    fn start(server: &TestPlugin) -> Plugin {
        let timeout = Duration::from_secs(30);
        let settings = Settings { name: "test".to_owned(), socket: server.socket(), timeout };
        Plugin::start(settings, Arc::default()).expect("starts a thread")
    }

    #[test]
    fn what_one_server_writes_another_reads() {
        let server = TestPlugin::start("1");
        let (one, other) = (start(&server), start(&server));
        assert_eq!((one.check_now(), other.check_now()), (Ok(()), Ok(())));
        let sealed = one.seal(b"here", b"data").expect("has a seed");
        let sealed = sealed.strip_prefix(b"k8s:enc:kms:v2:test:").expect("says who wrote it");
        assert_eq!(one.open(b"here", sealed), Ok((b"data".to_vec(), true)));
        assert_eq!(server.decryptions(), 0, "a server knows its own seed");
        assert_eq!(other.open(b"here", sealed), Ok((b"data".to_vec(), true)));
        assert_eq!(other.open(b"here", sealed), Ok((b"data".to_vec(), true)));
        assert_eq!((server.decryptions(), other.known_sources()), (1, 2), "the plugin is asked once");
        assert!(other.open(b"there", sealed).is_err());
    }

    #[test]
    fn a_plugin_that_is_not_well_says_why() {
        let server = TestPlugin::start("1");
        server.change("2", "sick");
        let refused = start(&server).check_now().expect_err("is sick");
        assert_eq!(refused, "kmsv2 Provider test is not healthy, error: got unexpected healthz status: sick");
        let nobody = Settings {
            name: "test".to_owned(),
            socket: "/nonexistent/kms.sock".into(),
            timeout: Duration::from_secs(30),
        };
        let plugin = Plugin::start(nobody, Arc::default()).expect("starts a thread");
        let why = plugin.check_now().expect_err("nobody is there");
        assert_eq!(plugin.seal(b"here", b"data"), Err("got unexpected nil transformer".to_owned()));
        let expect = "failed to perform status section of the healthz check for KMS Provider test, error: rpc error: code = Unavailable";
        assert!(why.starts_with(expect), "{why}");
    }

    #[tokio::test]
    async fn another_key_makes_another_seed_and_what_was_written_stale() {
        let server = TestPlugin::start("1");
        let settings =
            Settings { name: "test".to_owned(), socket: server.socket(), timeout: Duration::from_secs(30) };
        let (metrics, shared) = (Arc::<Metrics>::default(), Arc::<Shared>::default());
        let client = Client::new(&settings, metrics.clone());
        let mut keeper =
            Keeper { client, metrics, settings, shared: shared.clone(), version: String::new(), found: None };
        let (commands, _never) = unbounded_channel();
        let plugin = Plugin { name: "test".into(), prefix: "p:".into(), shared, commands };
        assert_eq!(keeper.check().await, Ok(()));
        let old = plugin.seal(b"", b"data").expect("has a seed");
        assert_eq!(keeper.check().await, Ok(()));
        assert_eq!(server.encryptions(), 1, "the seed is confirmed");
        server.change("2", "ok");
        assert_eq!(keeper.checked_lately().await, Ok(()));
        assert_eq!(plugin.open(b"", &old[2..]), Ok((b"data".to_vec(), true)), "nobody has asked again");
        assert_eq!(keeper.check().await, Ok(()));
        assert_eq!(server.encryptions(), 2);
        assert_eq!(plugin.open(b"", &old[2..]), Ok((b"data".to_vec(), false)));
        let new = plugin.seal(b"", b"data").expect("has a seed");
        assert_eq!(plugin.open(b"", &new[2..]), Ok((b"data".to_vec(), true)));
    }
}
