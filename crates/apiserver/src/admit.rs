//! Admission as the pipeline calls it: the plugins with a view of the store, those outside who are asked, the quotas,
//! and the rule that nobody grants more than they have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admission::rounds::Rounds;
use admission::rules::Attributes;
use admission::{
    MUTATING_POLICY, MUTATING_WEBHOOK, Notes, Operation, Request, VALIDATING_POLICY, VALIDATING_WEBHOOK,
    World, resourcequota,
};
use apimachinery::gvk::{GroupVersionKind, GroupVersionResource};
use apimachinery::{Status, Value, json};
use auth::authorizer::RBAC_GROUP;
use auth::deviceclaims::{self, Asker};
use store::{Scope, WatchItem};
use tokio::time::timeout;

use crate::admission_review::Review;
use crate::call::Call;
use crate::core::Core;
use crate::kind::KindRef;
use crate::metadata;
use crate::part::Part;
use crate::policy;
use crate::query::Query;
use crate::webhook;
use crate::webhook::metrics::Half;
use crate::write::Place;

/// The account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// Upstream looks for it ten times, a tenth of a second apart.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// What is to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub operation: Operation,
    /// The stored object; none for a creation.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

/// The mutating half. `object` is null for a deletion.
pub async fn mutate(
    call: &mut Call,
    place: &Place,
    asked: Asked<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    Admission { place, subresource: place.part.subresource(), asked }.mutate(call, object).await
}

/// The validating half, right before the commit.
pub async fn validate(
    call: &mut Call,
    place: &Place,
    asked: Asked<'_>,
    object: &Value,
) -> Result<(), Status> {
    if place.kind.resource.group == RBAC_GROUP && asked.operation != Operation::Delete {
        let may = |wanted: &auth::Attributes<'_>| call.core.authorize_now(wanted).is_allowed();
        call.core.authorizer.check_escalation(&call.user, object, asked.old, &may)?;
    }
    check_device_claims(call, place, asked, object)?;
    Admission { place, subresource: place.part.subresource(), asked }.validate(call, object).await
}

/// What only some may say in claims on devices.
fn check_device_claims(call: &Call, place: &Place, asked: Asked<'_>, object: &Value) -> Result<(), Status> {
    let namespace = &*place.key.namespace;
    let asker = Asker {
        user: &call.user,
        verb: call.info.verb,
        namespace,
        may: &|wanted: &auth::Attributes<'_>| call.core.authorize_now(wanted),
        namespace_object: &|| World::get(&*call.core, "namespaces", "", namespace),
    };
    let resource = &place.kind.resource;
    let errors = match (resource.group, resource.plural, place.part, asked.old) {
        (deviceclaims::GROUP, deviceclaims::CLAIMS, Part::Main, None) => {
            asker.check_requests(&object["spec"]["devices"]["requests"])
        }
        (deviceclaims::GROUP, deviceclaims::CLAIMS, Part::Status, Some(old)) => {
            asker.check_status(object, old)
        }
        (deviceclaims::GROUP, deviceclaims::TEMPLATES, Part::Main, None) => {
            asker.check_requests(&object["spec"]["spec"]["devices"]["requests"])
        }
        _ => return Ok(()),
    };
    if errors.is_empty() { Ok(()) } else { Err(place.invalid(object, &errors)) }
}

/// Both halves for what is posted to a subresource of an object: a Binding, an Eviction, a TokenRequest.
pub async fn posted(
    call: &mut Call,
    place: &Place,
    subresource: &str,
    object: &mut Value,
    dry_run: bool,
) -> Result<(), Status> {
    let asked = Asked { operation: Operation::Create, old: None, dry_run };
    let admission = Admission { place, subresource, asked };
    admission.mutate(call, object).await?;
    admission.validate(call, object).await
}

/// Both halves for a connection to what a subresource leads to: exec, attach, port-forward, proxy. What is admitted
/// are the options in the query.
pub async fn connect(call: &mut Call, kind: &KindRef) -> Result<(), Status> {
    let place = Place::of(call, kind, Part::Main);
    let subresource = call.info.subresource.clone();
    let Some(part) = kind.subresource(&subresource) else { return Ok(()) };
    let mut options = connect_options(&call.query, part.kind);
    let asked = Asked { operation: Operation::Connect, old: None, dry_run: false };
    let admission = Admission { place: &place, subresource: &subresource, asked };
    admission.mutate(call, &mut options).await?;
    admission.validate(call, &options).await
}

/// `PodExecOptions` and the like, as the query has them.
fn connect_options(query: &Query, kind: &str) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for field in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(field) {
            options[field] = true.into();
        }
    }
    for field in ["container", "path"] {
        if let Some(text) = query.get(field) {
            options[field] = text.into();
        }
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    let ports: Vec<i64> = query.all("ports").filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options["ports"] = json!(ports);
    }
    options
}

/// A pod often comes before the default service account of its new namespace: waits for it for a moment.
pub async fn await_default_account(call: &Call, place: &Place, object: &Value) {
    let core = &call.core;
    let notes = Notes::default();
    let asked = Asked { operation: Operation::Create, old: None, dry_run: false };
    let admission = Admission { place, subresource: "", asked };
    let awaits = || admission::awaits_default_account(&admission.request(call, &notes), object, &**core);
    if !awaits() {
        return;
    }
    let scope = Scope {
        resource: api::resource::SERVICE_ACCOUNTS.plural.into(),
        namespace: Some(place.key.namespace.clone()),
        name: Some(DEFAULT_ACCOUNT.into()),
    };
    // Watched before looked for once more, so that it cannot come in between unseen.
    let Ok(mut watch) = core.store.watch(scope, core.store.revision()) else { return };
    if !awaits() {
        return;
    }
    let made = async { while let Ok(WatchItem::Progress(_)) = watch.next().await {} };
    if timeout(DEFAULT_ACCOUNT_WAIT, made).await.is_err() {
        tracing::debug!(namespace = %place.key.namespace, "no default service account yet");
    }
}

/// One request on its way through admission.
#[derive(Clone, Copy)]
struct Admission<'a> {
    place: &'a Place,
    subresource: &'a str,
    asked: Asked<'a>,
}

impl<'a> Admission<'a> {
    async fn mutate(self, call: &mut Call, object: &mut Value) -> Result<(), Status> {
        let (notes, started) = (Notes::default(), Instant::now());
        let outcome = self.mutate_noting(call, object, &notes).await;
        self.finish(call, &notes, "admit", outcome.is_err(), started);
        outcome
    }

    async fn mutate_noting(self, call: &Call, object: &mut Value, notes: &Notes) -> Result<(), Status> {
        let core = &call.core;
        let in_tree = |object: &mut Value| {
            let mut asked = self.counting(call, Half::Admit);
            core.admission.admit(&self.request(call, notes), object, &**core, &mut asked)
        };
        in_tree(object)?;
        let mut others = Others::of(core);
        if others.are_none() {
            return Ok(());
        }
        let review = self.review(call, object, notes);
        if call.waiting.measure(others.change(&review, object)).await? {
            // What others have changed, the plugins look at again, and after them those who want to.
            others.second();
            in_tree(object)?;
            call.waiting.measure(others.change(&review, object)).await?;
        }
        Ok(())
    }

    async fn validate(self, call: &mut Call, object: &Value) -> Result<(), Status> {
        let (notes, started) = (Notes::default(), Instant::now());
        let outcome = self.validate_noting(call, object, &notes).await;
        self.finish(call, &notes, "validate", outcome.is_err(), started);
        outcome
    }

    async fn validate_noting(self, call: &Call, object: &Value, notes: &Notes) -> Result<(), Status> {
        let core = &call.core;
        let mut asked = self.counting(call, Half::Validate);
        core.admission.validate(&self.request(call, notes), object, &**core, &mut asked)?;
        if core.admission.runs(VALIDATING_POLICY) && core.policies.has_validating(&core.store) {
            policy::validate(&self.review(call, object, notes), object)?;
        }
        if core.admission.runs(VALIDATING_WEBHOOK) && !core.webhooks.validating(&core.store).is_empty() {
            let review = self.review(call, object, notes);
            call.waiting.measure(webhook::validating::validate(&review, object)).await?;
        }
        if core.admission.runs(resourcequota::NAME) {
            core.quotas.reserve(&core.store, &**core, &self.request(call, notes), object, call.now).await?;
        }
        Ok(())
    }

    /// Counts how long each plugin takes, from the moment when the one before it is done.
    fn counting(self, call: &Call, half: Half) -> impl FnMut(usize, bool) {
        let (metrics, operation) = (&call.core.admission_metrics, self.asked.operation);
        let mut before = Instant::now();
        move |place, passed| {
            let now = Instant::now();
            metrics.plugin(place, half, operation, passed, now - before);
            before = now;
        }
    }

    /// Hands on what was said, and counts.
    fn finish(self, call: &mut Call, notes: &Notes, step: &str, rejected: bool, started: Instant) {
        let said = notes.take();
        call.warnings.extend(said.warnings);
        if let Some(record) = &call.audit {
            record.annotate(said.annotations);
        }
        let request = self.request(call, notes);
        let counted = &call.core.metrics.pod_security;
        said.findings.into_iter().for_each(|finding| counted.found(finding, &request));
        call.core.admission_metrics.step(step, self.asked.operation.name(), rejected, started.elapsed());
    }

    fn request(self, call: &'a Call, notes: &'a Notes) -> Request<'a> {
        let resource = &self.place.kind.resource;
        Request {
            user: &call.user,
            operation: self.asked.operation,
            group: resource.group,
            resource: resource.plural,
            subresource: self.subresource,
            namespace: &self.place.key.namespace,
            name: &self.place.key.name,
            old: self.asked.old,
            dry_run: self.asked.dry_run,
            notes,
        }
    }

    fn review<'r>(self, call: &'r Call, object: &Value, notes: &'r Notes) -> Review<'r>
    where
        'a: 'r,
    {
        let attributes = self.attributes(call, object);
        Review { core: &call.core, place: self.place, attributes, old: self.asked.old, notes }
    }

    fn attributes(self, call: &Call, object: &Value) -> Attributes {
        let kind = &self.place.kind;
        let resource = &kind.resource;
        let part = kind.subresource(self.subresource).filter(|_| !self.subresource.is_empty());
        let name = match &*self.place.key.name {
            "" => apimachinery::meta::str_at(object, &["metadata", "name"]),
            name => name,
        };
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        Attributes {
            operation: self.asked.operation,
            kind: match part {
                Some(part) => GroupVersionKind::new(part.group, part.version, part.kind),
                None => GroupVersionKind::new(resource.group, resource.version, resource.kind),
            },
            resource: GroupVersionResource::new(resource.group, resource.version, resource.plural),
            subresource: self.subresource.to_owned(),
            namespace: if is_namespace { name } else { &self.place.key.namespace }.to_owned(),
            name: name.to_owned(),
            user: call.user.clone(),
            dry_run: self.asked.dry_run,
            options: options(call, self.asked),
            equivalents: equivalents(&call.core, kind, self.subresource),
        }
    }
}

/// Those who may change an object beside the plugins, if there are any, and what they remember between two rounds.
struct Others {
    policies: Option<Rounds>,
    webhooks: Option<Rounds>,
}

impl Others {
    fn of(core: &Core) -> Others {
        let policies = core.admission.runs(MUTATING_POLICY) && core.policies.has_mutating(&core.store);
        let webhooks =
            core.admission.runs(MUTATING_WEBHOOK) && !core.webhooks.mutating(&core.store).is_empty();
        Others { policies: policies.then(Rounds::default), webhooks: webhooks.then(Rounds::default) }
    }

    fn are_none(&self) -> bool {
        self.policies.is_none() && self.webhooks.is_none()
    }

    fn second(&mut self) {
        self.policies.iter_mut().chain(&mut self.webhooks).for_each(Rounds::second);
    }

    /// One round. Returns whether the object has been changed.
    async fn change(&mut self, review: &Review<'_>, object: &mut Value) -> Result<bool, Status> {
        let mut changed = false;
        if let Some(rounds) = &mut self.policies {
            changed |= policy::mutate(review, object, rounds)?;
        }
        if let Some(rounds) = &mut self.webhooks {
            changed |= webhook::mutating::admit(review, object, rounds).await?;
        }
        Ok(changed)
    }
}

/// The request's options, as those outside see them.
fn options(call: &Call, asked: Asked<'_>) -> Value {
    let kind = match (call.info.verb, asked.operation) {
        ("patch", _) => "PatchOptions",
        (_, Operation::Create) => "CreateOptions",
        (_, Operation::Update) => "UpdateOptions",
        (_, Operation::Delete) => "DeleteOptions",
        (_, Operation::Connect) => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if asked.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for field in ["fieldManager", "fieldValidation", "propagationPolicy"] {
        if let Some(text) = call.query.get(field).filter(|text| !text.is_empty()) {
            options[field] = text.into();
        }
    }
    if call.query.get("force").is_some() {
        options["force"] = call.query.flag("force").into();
    }
    options
}

/// The other versions in which the same objects are served, for subresources too.
fn equivalents(
    core: &Core,
    kind: &KindRef,
    subresource: &str,
) -> Vec<(GroupVersionResource, GroupVersionKind)> {
    let names = |row: &api::catalogue::Kind| {
        let r = &row.resource;
        let part = row.subresource(subresource).filter(|_| !subresource.is_empty());
        let kind = match part {
            Some(part) => GroupVersionKind::new(part.group, part.version, part.kind),
            None => GroupVersionKind::new(r.group, r.version, r.kind),
        };
        (GroupVersionResource::new(r.group, r.version, r.plural), kind)
    };
    match kind {
        KindRef::BuiltIn(own) => {
            let same =
                |row: &&api::catalogue::Kind| row.storage == own.storage && row.resource != own.resource;
            api::CATALOGUE.iter().filter(same).map(names).collect()
        }
        KindRef::Custom(own) if own.shared.conversion.webhook.is_none() => {
            let registered = core.customresources.find(&core.store, own.kind.storage);
            let kinds = registered.iter().flat_map(|registered| registered.served());
            kinds
                .filter(|other| other.kind.resource != own.kind.resource)
                .map(|other| names(&other.kind))
                .collect()
        }
        KindRef::Custom(_) => Vec::new(),
    }
}

impl World for Core {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let entry = self.store.get(&store::Key::new(resource, namespace, name))?;
        Some(self.decoded.get(&entry))
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let page = self.store.range(resource, namespace, None, None, 0, &|_| true);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        entries.iter().map(|entry| self.decoded.get(entry)).collect()
    }

    fn random_suffix(&self) -> String {
        metadata::generated_name("", &self.config.random)
    }

    fn authorize(&self, request: &auth::Attributes<'_>) -> auth::Decision {
        self.authorize_now(request)
    }

    fn resource_of(&self, group: &str, kind: &str) -> Option<(String, bool)> {
        let row = api::CATALOGUE.iter().find(|row| row.resource.group == group && row.resource.kind == kind);
        row.map(|row| (row.resource.plural.to_owned(), row.resource.namespaced))
    }
}

/// Which objects stand under the names that tokens are bound to.
impl auth::Objects for Core {
    fn identity(&self, resource: &str, namespace: &str, name: &str) -> Option<auth::authenticator::Identity> {
        let object = World::get(self, resource, namespace, name)?;
        let text = |field: &str| apimachinery::meta::str_at(&object, &["metadata", field]);
        Some(auth::authenticator::Identity {
            uid: text("uid").to_owned(),
            deleted_at: apimachinery::time::parse_time(text("deletionTimestamp")),
        })
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object(api::resource::SECRETS, namespace, name)
    }
}
