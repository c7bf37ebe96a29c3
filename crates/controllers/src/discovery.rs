//! Which resources the server has, custom ones included, and the metadata of all their objects: what the garbage
//! collector and the namespace controller work on.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::resource::{Resource, intern};
use api::view::PartialObject;
use client::error::Result;
use client::{Client, Delta, Informers};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// The pause after a discovery that failed; it doubles up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long the first lists of all resources are waited for (upstream: `initialSyncTimeout`).
const FIRST_LISTS_MAX: Duration = Duration::from_secs(30);

/// A resource as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub resource: Resource,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// What discovery found, in the preferred version of each group.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    pub resources: Vec<Served>,
    /// What went wrong for groups that could not be asked.
    pub errors: Vec<String>,
}

/// The aggregated document of `/api` or `/apis`: all groups in one answer, of which a kind made at run time needs two.
#[derive(Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMetadata,
    /// The preferred one first.
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupMetadata {
    name: String,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource {
    resource: String,
    #[serde(default)]
    singular_resource: String,
    scope: String,
    response_kind: ResponseKind,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    kind: String,
}

/// The form of discovery that is asked for.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What a group is called whose server could not be asked lately.
const STALE: &str = "Stale";

pub async fn discover(client: &Client) -> Result<Discovered> {
    let mut discovered = Discovered::default();
    for path in ["/api", "/apis"] {
        let groups: Groups = client.get_as(path, AGGREGATED).await?;
        groups.items.into_iter().for_each(|group| discovered.add(group));
    }
    Ok(discovered)
}

impl Discovered {
    /// Adds each resource of a group in the most preferred version that has it.
    fn add(&mut self, group: Group) {
        let name = group.metadata.name;
        let mut known = HashSet::new();
        for version in group.versions {
            if version.freshness == STALE {
                self.errors.push(format!("{name}/{}: stale GroupVersion discovery", version.version));
            }
            let fresh = version.resources.into_iter().filter(|r| known.insert(r.resource.clone()));
            self.resources.extend(fresh.map(|r| Served {
                resource: Resource {
                    group: intern(&name),
                    version: intern(&version.version),
                    kind: intern(&r.response_kind.kind),
                    plural: intern(&r.resource),
                    singular: intern(&r.singular_resource),
                    namespaced: r.scope == "Namespaced",
                },
                verbs: r.verbs,
            }));
        }
    }
}

/// Follows the metadata of all objects that can be listed, watched and deleted, and finds new resources when a
/// CustomResourceDefinition changes.
pub struct Monitors {
    pub client: Client,
    pub informers: Informers,
}

impl Monitors {
    /// Runs for ever: `found` hears of every discovery, `changed` of every change of an object, and `filled` is told once
    /// all objects that were there at the start have been shown.
    pub async fn run(
        self,
        found: impl Fn(&Discovered),
        changed: impl Fn(Resource, &Delta<PartialObject>) + Send + Sync + 'static,
        filled: impl FnOnce() + Send + 'static,
    ) {
        let changed = Arc::new(changed);
        let (listing, listed) = mpsc::channel(1);
        let mut first = Some((listing, listed, filled));
        let mut followed: HashMap<Resource, AbortHandle> = HashMap::new();
        let mut followers = JoinSet::new();
        let mut definitions = None;
        loop {
            let discovered = self.discover().await;
            found(&discovered);
            for resource in no_longer_followed(&discovered, followed.keys()) {
                self.leave(resource, &discovered, &*changed);
                followed.remove(&resource).inspect(AbortHandle::abort);
            }
            while followers.try_join_next().is_some() {}
            for served in discovered.resources.iter().filter(|served| is_monitored(served)) {
                if followed.contains_key(&served.resource) {
                    continue;
                }
                if served.resource.plural == "customresourcedefinitions" {
                    definitions = Some(self.metadata(served.resource).subscribe());
                }
                let listing = first.as_ref().map(|(listing, ..)| listing.clone());
                let informer = self.metadata(served.resource);
                let follower = followers.spawn(follow(informer, served.resource, changed.clone(), listing));
                followed.insert(served.resource, follower);
            }
            if let Some((listing, listed, filled)) = first.take() {
                drop(listing);
                followers.spawn(first_lists(listed, filled));
            }
            let Some(definitions) = &mut definitions else { return drain(followers).await };
            if definitions.recv().await.is_none() {
                return drain(followers).await;
            }
            // A burst of changes needs one discovery.
            while definitions.try_recv().is_ok() {}
        }
    }

    /// Ends the informer of a resource. If it is gone in every version, so are its objects.
    fn leave(
        &self,
        resource: Resource,
        discovered: &Discovered,
        changed: &impl Fn(Resource, &Delta<PartialObject>),
    ) {
        let same = |served: &Served| {
            (served.resource.group, served.resource.plural) == (resource.group, resource.plural)
        };
        if !discovered.resources.iter().any(same) {
            for object in self.metadata(resource).list() {
                changed(resource, &Delta::Deleted(object));
            }
        }
        self.informers.forget(resource);
    }

    fn metadata(&self, resource: Resource) -> client::Informer<PartialObject> {
        self.informers.get_selected(resource, "")
    }

    async fn discover(&self) -> Discovered {
        let mut backoff = BACKOFF_MIN;
        loop {
            match discover(&self.client).await {
                Ok(discovered) => return discovered,
                Err(error) => tracing::warn!(%error, "discovery failed, will retry"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// What is followed but not served any more; nothing while some groups could not be asked.
fn no_longer_followed<'a>(
    discovered: &Discovered,
    followed: impl Iterator<Item = &'a Resource>,
) -> Vec<Resource> {
    if !discovered.errors.is_empty() {
        return Vec::new();
    }
    let served: HashSet<Resource> = discovered.resources.iter().map(|served| served.resource).collect();
    followed.filter(|resource| !served.contains(resource)).copied().collect()
}

/// Events own nothing, are owned by nothing and expire by themselves.
fn is_monitored(served: &Served) -> bool {
    ["list", "watch", "delete"].iter().all(|verb| served.can(verb)) && served.resource.plural != "events"
}

/// Whoever has shown its first list drops its sender of this.
type Listing = mpsc::Sender<Infallible>;

async fn first_lists(mut listed: mpsc::Receiver<Infallible>, filled: impl FnOnce()) {
    if tokio::time::timeout(FIRST_LISTS_MAX, listed.recv()).await.is_err() {
        tracing::warn!("not all resources could be listed, going on without them");
    }
    filled();
}

async fn follow(
    informer: client::Informer<PartialObject>,
    resource: Resource,
    changed: Arc<impl Fn(Resource, &Delta<PartialObject>)>,
    listing: Option<Listing>,
) {
    let mut deltas = informer.subscribe();
    informer.synced().await;
    while let Ok(delta) = deltas.try_recv() {
        changed(resource, &delta);
    }
    drop(listing);
    while let Some(delta) = deltas.recv().await {
        changed(resource, &delta);
    }
}

async fn drain(mut followers: JoinSet<()>) {
    while followers.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_there_is_shown_before_the_lists_count_as_in() {
        let (informer, feeder) = client::Informer::detached();
        for name in ["x", "y"] {
            let object =
                json!({"metadata": {"namespace": "a", "name": name, "uid": name, "resourceVersion": "1"}});
            feeder.apply(apimachinery::from_value(object).expect("metadata"));
        }
        let (shown, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(None)));
        let (listing, listed) = mpsc::channel(1);
        let (count, filled) = (shown.clone(), (shown.clone(), seen.clone()));
        let changed = Arc::new(move |_: Resource, _: &Delta<PartialObject>| *count.lock() += 1);
        let following = follow(informer, api::resource::PODS, changed, Some(listing));
        let waiting = first_lists(listed, move || *filled.1.lock() = Some(*filled.0.lock()));
        let both = async { tokio::join!(waiting, following) };
        tokio::time::timeout(FIRST_LISTS_MAX / 2, both).await.expect_err("it follows for ever");
        assert_eq!(*seen.lock(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_cannot_be_listed_holds_nobody_up_for_ever() {
        let (_listing, listed) = mpsc::channel(1);
        let started = tokio::time::Instant::now();
        first_lists(listed, || {}).await;
        assert_eq!(started.elapsed(), FIRST_LISTS_MAX);
    }

    #[test]
    fn what_is_served_no_more_is_left_unless_a_group_could_not_be_asked() {
        let mut discovered = Discovered::default();
        discovered.add(group(json!([{"version": "v1", "resources": [resource("widgets")]}])));
        let widgets = discovered.resources[0].resource;
        let followed = [widgets, api::resource::PODS];
        assert_eq!(no_longer_followed(&discovered, followed.iter()), [api::resource::PODS]);
        discovered.errors.push("v1: no".to_owned());
        assert_eq!(no_longer_followed(&discovered, followed.iter()), []);
    }

    fn group(versions: apimachinery::Value) -> Group {
        let group = json!({"metadata": {"name": "example.com"}, "versions": versions});
        apimachinery::from_value(group).expect("a group")
    }

    fn resource(plural: &str) -> apimachinery::Value {
        json!({"resource": plural, "singularResource": "x", "scope": "Namespaced", "responseKind": {"kind": "X"},
               "verbs": ["list", "watch"]})
    }

    #[test]
    fn a_resource_is_taken_in_its_most_preferred_version_and_names_are_kept_once() {
        let mut discovered = Discovered::default();
        let versions = json!([
            {"version": "v2", "resources": [resource("widgets")]},
            {"version": "v1", "freshness": "Stale", "resources": [resource("gadgets"), resource("widgets")]},
        ]);
        for _ in 0..2 {
            discovered.add(group(versions.clone()));
        }
        let [widgets, gadgets, again, _] = &discovered.resources[..] else { panic!("two were added, twice") };
        assert_eq!(widgets, again);
        assert!(std::ptr::eq(widgets.resource.plural, again.resource.plural));
        assert_eq!(widgets.resource.path("a", "x"), "/apis/example.com/v2/namespaces/a/widgets/x");
        assert_eq!(gadgets.resource.version, "v1");
        assert!(widgets.can("list") && !is_monitored(widgets));
        assert_eq!(discovered.errors[0], "example.com/v1: stale GroupVersion discovery");
    }
}
