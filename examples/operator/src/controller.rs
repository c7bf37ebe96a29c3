//! Keeps the pages of each Website in a ConfigMap of its name, and says so in its status and in events.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::OPERATOR;
use crate::website::Website;

const FINALIZER: &str = "example.com/website-operator";

/// A Website that could not be served is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the API server refused: {0}")]
    Kube(#[from] kube::Error),
    #[error("{0}")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
    #[error("a Website from the API server has no {0}")]
    Missing(&'static str),
}

struct Context {
    client: Client,
    recorder: Recorder,
}

/// Serves all Websites until the process ends.
pub async fn run(client: Client) {
    let reporter = Reporter { controller: OPERATOR.to_owned(), instance: None };
    let context =
        Arc::new(Context { recorder: Recorder::new(client.clone(), reporter), client: client.clone() });
    Controller::new(Api::<Website>::all(client.clone()), watcher::Config::default())
        .owns(Api::<ConfigMap>::all(client), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|result| async move {
            match result {
                Ok((website, _)) => println!("{website} is as it should be"),
                Err(error) => println!("{error}"),
            }
        })
        .await;
}

async fn reconcile(website: Arc<Website>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = website.namespace().ok_or(Error::Missing("namespace"))?;
    let websites: Api<Website> = Api::namespaced(context.client.clone(), &namespace);
    let settled = finalizer(&websites, FINALIZER, website, |event| async {
        match event {
            finalizer::Event::Apply(website) => publish(&website, &namespace, &context).await,
            finalizer::Event::Cleanup(website) => withdraw(&website, &context).await,
        }
    });
    settled.await.map_err(|error| Error::Finalizer(Box::new(error)))
}

/// Writes the ConfigMap, and the status if it does not say so yet.
async fn publish(website: &Website, namespace: &str, context: &Context) -> Result<Action, Error> {
    let owner = website.controller_owner_ref(&()).ok_or(Error::Missing("uid"))?;
    let pages = ConfigMap {
        metadata: ObjectMeta {
            name: Some(website.name_any()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(website.spec.pages.clone()),
        ..ConfigMap::default()
    };
    let apply = PatchParams::apply(OPERATOR).force();
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    config_maps.patch(&website.name_any(), &apply, &Patch::Apply(&pages)).await?;
    let count = website.spec.pages.len();
    let known = website.status.as_ref();
    let generation = website.metadata.generation;
    let ready = |status: &crate::website::WebsiteStatus| {
        status.conditions.iter().any(|condition| condition.observed_generation == generation)
    };
    if !known.is_some_and(ready) {
        let status = json!({
            "apiVersion": Website::api_version(&()), "kind": Website::kind(&()),
            "status": {"pages": count, "conditions": [{
                "type": "Ready", "status": "True", "reason": "Published", "observedGeneration": generation,
                "message": format!("{count} pages are in the ConfigMap"),
                "lastTransitionTime": Timestamp::now().to_string(),
            }]},
        });
        let websites: Api<Website> = Api::namespaced(context.client.clone(), namespace);
        websites.patch_status(&website.name_any(), &apply, &Patch::Apply(&status)).await?;
        report(website, context, "Published", format!("{count} pages")).await?;
    }
    Ok(Action::await_change())
}

/// The ConfigMap goes by itself: the Website owns it.
async fn withdraw(website: &Website, context: &Context) -> Result<Action, Error> {
    report(website, context, "Withdrawn", "its pages go with it".to_owned()).await?;
    Ok(Action::await_change())
}

async fn report(website: &Website, context: &Context, reason: &str, note: String) -> Result<(), Error> {
    let event = Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    context.recorder.publish(&event, &website.object_ref(&())).await?;
    Ok(())
}
