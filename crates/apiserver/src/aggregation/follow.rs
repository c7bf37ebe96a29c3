//! Follows APIServices and what they depend on: checks those concerned by a change at once, those that fail again and
//! again after longer and longer pauses, and those that pass now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Resource, resource};
use apimachinery::meta::str_at;
use apimachinery::{GroupVersion, Value};
use auth::UserInfo;
use auth::user::MASTERS;
use http::Request;
use store::{Gone, Key, Scope, Watch, WatchItem};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ask::{self, ANSWER_BYTES_MAX, Answer, USER, ask};
use super::availability::{SERVICE_NAME, Verdict, obstacle};
use super::discovery::{self, OpenApi, Remote};
use super::route::{API_SERVICES, Route};
use crate::core::Core;
use crate::{body, conversion, loopback};

/// One that passes is asked again after this, since nothing tells when it dies (upstream's resync).
const RECHECK: Duration = Duration::from_secs(30);
/// Pauses after failures double from the first to the second of these.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
const SLICES: &str = "endpointslices.discovery.k8s.io";
const WATCHED: [&str; 3] = ["apiservices.apiregistration.k8s.io", resource::SERVICES.plural, SLICES];

/// When an APIService is checked next, and how often it failed in a row.
struct Planned {
    /// What it was when last planned: a change of its status alone is this task's own word.
    spec: Value,
    due: Instant,
    failures: u32,
    is_running: bool,
}

struct Follower {
    core: Arc<Core>,
    /// By the APIService's name; only those that lead elsewhere.
    planned: HashMap<String, Planned>,
    running: JoinSet<(String, bool)>,
}

/// Follows them until `stop`.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut follower = Follower { core, planned: HashMap::new(), running: JoinSet::new() };
    let [Ok(mut services), Ok(mut targets), Ok(mut slices)] = WATCHED.map(|storage| follower.watch(storage))
    else {
        return tracing::error!("the APIServices cannot be followed");
    };
    follower.plan_all();
    loop {
        follower.start_due();
        let waiting = follower.planned.values().filter(|planned| !planned.is_running);
        let next = waiting.map(|planned| planned.due).min();
        let until_next = async {
            match next {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let (storage, item) = tokio::select! {
            () = stop.cancelled() => return,
            () = until_next => continue,
            Some(done) = follower.running.join_next() => {
                follower.finished(done.ok());
                continue;
            }
            item = services.next() => (0, item),
            item = targets.next() => (1, item),
            item = slices.next() => (2, item),
        };
        match item {
            Ok(WatchItem::Progress(_)) => {}
            Ok(WatchItem::Event { entry, .. }) => {
                follower.changed(storage, &conversion::decode(&entry.bytes));
            }
            Err(gone) if gone.is_end() => return,
            Err(_) => {
                let Ok(fresh) = follower.watch(WATCHED[storage]) else { return };
                *[&mut services, &mut targets, &mut slices][storage] = fresh;
                follower.plan_all();
            }
        }
    }
}

impl Follower {
    fn watch(&self, storage: &'static str) -> Result<Watch, Gone> {
        self.core.store.watch(Scope::resource(storage), self.core.store.revision())
    }

    fn plan_all(&mut self) {
        let page = self.core.store.range(WATCHED[0], None, None, None, 0, &|_| true);
        for entry in page.map(|page| page.entries).unwrap_or_default() {
            self.plan(&conversion::decode(&entry.bytes));
        }
    }

    /// Checks it as soon as may be, if it leads elsewhere.
    fn plan(&mut self, api_service: &Value) {
        let name = str_at(api_service, &["metadata", "name"]);
        if !api_service["spec"]["service"].is_object() {
            self.planned.remove(name);
            return;
        }
        let (due, spec) = (Instant::now(), api_service["spec"].clone());
        let new = Planned { spec: spec.clone(), due, failures: 0, is_running: false };
        let planned = self.planned.entry(name.to_owned()).or_insert(new);
        (planned.due, planned.spec) = (due, spec);
    }

    fn changed(&mut self, storage: usize, object: &Value) {
        let name = str_at(object, &["metadata", "name"]);
        if storage == 0 {
            let Some(current) = stored(&self.core, API_SERVICES, "", name) else {
                self.planned.remove(name);
                return self.core.aggregator.forget(name, &group_version(object));
            };
            if self.planned.get(name).is_none_or(|planned| planned.spec != current["spec"]) {
                self.plan(&current);
            }
            return;
        }
        let service = if storage == 1 { name } else { str_at(object, &["metadata", "labels", SERVICE_NAME]) };
        let namespace = str_at(object, &["metadata", "namespace"]);
        let names: Vec<String> = self.planned.keys().cloned().collect();
        for name in names {
            let Some(current) = stored(&self.core, API_SERVICES, "", &name) else { continue };
            let to = &current["spec"]["service"];
            if str_at(to, &["namespace"]) == namespace && str_at(to, &["name"]) == service {
                self.plan(&current);
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for (name, planned) in &mut self.planned {
            if planned.due <= now && !planned.is_running {
                planned.is_running = true;
                // Whatever changes from here on plans it anew.
                planned.due = now + RECHECK;
                let (core, name) = (self.core.clone(), name.clone());
                self.running.spawn(async move {
                    let passed = check(&core, &name).await;
                    (name, passed)
                });
            }
        }
    }

    fn finished(&mut self, done: Option<(String, bool)>) {
        let Some((name, passed)) = done else { return };
        let Some(planned) = self.planned.get_mut(&name) else { return };
        planned.is_running = false;
        if passed {
            planned.failures = 0;
            return;
        }
        let pause = RETRY_MIN.saturating_mul(1 << planned.failures.min(8)).min(RETRY_MAX);
        planned.failures += 1;
        planned.due = planned.due.min(Instant::now() + pause);
    }
}

fn stored(core: &Core, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
    core.object(resource, namespace, name)
}

fn group_version(api_service: &Value) -> GroupVersion {
    GroupVersion::new(str_at(api_service, &["spec", "group"]), str_at(api_service, &["spec", "version"]))
}

/// Judges an APIService, says so in its status, and keeps what it serves; true when it can be called.
async fn check(core: &Arc<Core>, name: &str) -> bool {
    let Some(object) = stored(core, API_SERVICES, "", name) else { return true };
    let version = group_version(&object);
    let answered = match obstacle_now(core, &object) {
        Some(obstacle) => Err(obstacle),
        None => ask(core, &version).await.map_err(Verdict::of_discovery),
    };
    let verdict = match &answered {
        Ok(_) => Verdict::passed(),
        Err(verdict) => verdict.clone(),
    };
    discovered(core, &object, &version, answered.ok());
    report(core, name, &verdict).await;
    let passed = verdict.status == "True";
    if passed {
        describe(core, &version).await;
    }
    passed
}

/// Keeps what its version 2 document says. Nobody waits for that to use it.
async fn describe(core: &Core, version: &GroupVersion) {
    let discovered = &core.aggregator.discovered;
    let known = discovered.read().get(version).and_then(|remote| remote.open_api.v2.clone());
    if let Some(described) = ask::describe(core, version, known.as_deref()).await
        && let Some(remote) = discovered.write().get_mut(version)
    {
        Arc::make_mut(remote).open_api.v2 = Some(Arc::new(described));
    }
}

fn obstacle_now(core: &Core, object: &Value) -> Option<Verdict> {
    let to = &object["spec"]["service"];
    let (namespace, name) = (str_at(to, &["namespace"]), str_at(to, &["name"]));
    let service = stored(core, resource::SERVICES, namespace, name);
    let page = core.store.range(SLICES, Some(namespace), None, None, 0, &|_| true);
    let slices = page.map(|page| page.entries).unwrap_or_default();
    let slices = slices.iter().map(|entry| conversion::decode(&entry.bytes));
    let slices: Vec<Value> =
        slices.filter(|slice| str_at(slice, &["metadata", "labels", SERVICE_NAME]) == name).collect();
    obstacle(object, service.as_ref(), &slices)
}

/// Keeps what was said, or that nothing new was.
fn discovered(core: &Core, object: &Value, version: &GroupVersion, answer: Option<Answer>) {
    let priority = |field: &str| object["spec"][field].as_i64().unwrap_or_default();
    let before = core.aggregator.discovered.read().get(version).cloned();
    let mut open_api = before.as_ref().map(|before| before.open_api.clone()).unwrap_or_default();
    let is_fresh = answer.is_some();
    let resources = match answer {
        Some(answer) => {
            open_api.hash = answer.open_api_hash;
            discovery::resources(version, &answer.resources)
        }
        None => before.map(|before| before.resources.clone()).unwrap_or_default(),
    };
    let remote = Remote {
        group_priority: priority("groupPriorityMinimum"),
        version_priority: priority("versionPriority"),
        resources,
        is_fresh,
        open_api,
    };
    core.aggregator.discover(version, remote);
}

/// Asks a backend of this process what it serves.
pub async fn discover_in_process(core: &Core, served: &super::GroupServed) {
    let version = &served.group_version;
    let Some(Route::InProcess(backend)) = core.aggregator.route(&core.store, version).await else { return };
    let path = format!("/apis/{}/{}", version.group, version.version);
    let mut request = Request::new(bytes::Bytes::new());
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    let response = backend.handle(&UserInfo::new(USER, [MASTERS]), request).await;
    let bytes = body::read_at_most(response.into_body(), ANSWER_BYTES_MAX).await.unwrap_or_default();
    let list: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let remote = Remote {
        group_priority: served.group_priority_minimum,
        version_priority: served.version_priority,
        resources: discovery::resources(version, &list),
        is_fresh: true,
        open_api: OpenApi::default(),
    };
    core.aggregator.discover(version, remote);
}

/// Says what was found in the APIService's status.
async fn report(core: &Arc<Core>, name: &str, verdict: &Verdict) {
    let Some(entry) = core.store.get(&Key::cluster(WATCHED[0], name)) else { return };
    let mut object = conversion::decode(&entry.bytes);
    let now = (core.config.clock)();
    let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    if !verdict.apply(&mut object, &now) {
        return;
    }
    if let Err(status) = loopback::update_status(core, API_SERVICES, &object).await {
        tracing::debug!(message = status.message, name, "an APIService's status was not written");
    }
}
