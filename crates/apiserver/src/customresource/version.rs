//! The rules of one version of a custom kind. Follows `registry/customresource.customResourceStrategy` and `statusStrategy`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use api::objectmeta;
use api::resource::{Resource, intern};
use api::shown::Shown;
use api::strategy::{self, Strategy};
use apiextensions::columns::{self, Column};
use apiextensions::definition::{Scale, Version as Said};
use apiextensions::jsonpath::JsonPath;
use apiextensions::rules::{self, Findings, Rules};
use apiextensions::{Structural, embedded, expression, listtype, scale, validate};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Text, Value, names};
use jiff::Timestamp;

use super::registry::{Shared, schema_of};

/// Finalizers of Kubernetes itself need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

pub struct Version {
    resource: Resource,
    shared: Arc<Shared>,
    schema: OnceLock<Structural>,
    rules: OnceLock<Option<Rules>>,
    columns: Vec<Column>,
    shown: Shown,
    pub has_status: bool,
    pub scale: Option<Scale>,
    selectable: Vec<(&'static str, Option<JsonPath>)>,
    selectable_names: Vec<&'static str>,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Version").field(&self.resource).finish()
    }
}

impl Version {
    pub fn new(resource: Resource, said: &Said, shared: Arc<Shared>) -> Version {
        let selectable: Vec<(&'static str, Option<JsonPath>)> = said
            .selectable_fields
            .iter()
            .map(|field| {
                let name = field.json_path.strip_prefix('.').unwrap_or(&field.json_path);
                (intern(name), JsonPath::parse(&field.json_path).ok())
            })
            .collect();
        let columns = Column::all(said);
        let mut shown: Vec<Vec<&str>> =
            columns.iter().filter_map(|column| column.shows().map(Iterator::collect)).collect();
        shown.push(vec!["metadata", "name"]);
        Version {
            resource,
            shared,
            schema: OnceLock::new(),
            rules: OnceLock::new(),
            shown: Shown::of(shown),
            columns,
            has_status: said.subresources.status.is_some(),
            scale: said.subresources.scale.clone(),
            selectable_names: selectable.iter().map(|(name, _)| *name).collect(),
            selectable,
        }
    }

    /// Read from the definition when first asked for.
    pub fn schema(&self) -> &Structural {
        self.schema.get_or_init(|| Structural::parse(&self.open_api_schema()))
    }

    /// Compiled when first asked for; none where the schema has none.
    fn rules(&self) -> Option<&Rules> {
        let compile = || {
            let (schema, began) = (self.schema(), Instant::now());
            let rules = Rules::new(schema, &expression::compile);
            if rules.is_some() {
                self.shared.metrics.compiled(began.elapsed());
            }
            rules
        };
        self.rules.get_or_init(compile).as_ref()
    }

    fn evaluate(&self, rules: &Rules, obj: &Value, old: Option<&Value>) -> Findings {
        let began = Instant::now();
        let findings = rules.check(self.schema(), obj, old);
        self.shared.metrics.evaluated(began.elapsed());
        findings
    }

    /// The schema as it was written.
    pub fn open_api_schema(&self) -> Value {
        schema_of(&self.shared.entry, self.resource.version)
    }

    pub fn column_definitions(&self) -> Vec<Value> {
        let name = strategy::NAME_AND_CREATED_AT[0];
        let name = apimachinery::json!({"name": name.name, "type": name.column_type, "format": name.format,
            "description": "Name must be unique within a namespace. It cannot be changed once the object exists.",
            "priority": name.priority});
        std::iter::once(name).chain(self.columns.iter().map(Column::describe)).collect()
    }

    fn check_type(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let api_version = self.resource.api_version();
        for (field, wanted) in [("kind", self.resource.kind), ("apiVersion", &api_version)] {
            let found = str_at(obj, &[field]);
            if found != wanted {
                errors.push(Error::invalid(&Path::new(field), found, format!("must be {wanted}")));
            }
        }
        errors
    }

    fn embedded(&self, obj: &Value) -> ErrorList {
        let metadata = |metadata: &Value, path: &Path| embedded_metadata(metadata, path);
        embedded::validate(obj, self.schema(), &metadata)
    }
}

/// The rules of ObjectMeta for an object within another, which need not have a name.
fn embedded_metadata(metadata: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    objectmeta::validate_labels(metadata.get("labels"), &path.child("labels"), &mut errors);
    objectmeta::validate_annotations(metadata.get("annotations"), &path.child("annotations"), &mut errors);
    let name = str_at(metadata, &["name"]);
    if !name.is_empty() {
        let complaints = names::is_path_segment_name(name);
        errors.extend(complaints.into_iter().map(|why| Error::invalid(&path.child("name"), name, why)));
    }
    errors
}

/// Follows `validateKubeFinalizerName`.
fn about_finalizer(name: &str) -> Vec<String> {
    let mut complaints = names::is_qualified_name(name);
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        complaints.push(format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    complaints.into_iter().map(|why| format!("metadata.finalizers: {name:?}: {why}")).collect()
}

/// Whether anything but metadata differs.
fn differs(obj: &Value, old: &Value) -> bool {
    let (Some(obj), Some(old)) = (obj.as_object(), old.as_object()) else { return obj != old };
    let rest = |(key, _): &(&Text, &Value)| *key != "metadata";
    !obj.iter().filter(rest).eq(old.iter().filter(rest))
}

impl Strategy for Version {
    fn prepare_for_create(&self, obj: &mut Value) {
        if self.has_status {
            strategy::drop_field(obj, "status");
        }
        strategy::set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        if self.has_status {
            strategy::keep(obj, old, "status");
        }
        strategy::advance_generation(obj, old, differs(obj, old));
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        let mut next = old.clone();
        strategy::keep(&mut next, obj, "status");
        for field in ["managedFields", "resourceVersion"] {
            strategy::keep_metadata(&mut next, obj, field);
        }
        *obj = next;
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = self.check_type(obj);
        if !errors.is_empty() {
            return errors;
        }
        errors.extend(validate::validate(&Path::new(""), obj, None, self.schema()));
        if let Some(paths) = &self.scale {
            errors.extend(scale::validate_spec(obj, paths));
            errors.extend(scale::validate_status(obj, paths));
        }
        errors.extend(self.embedded(obj));
        errors.extend(listtype::validate(obj, self.schema()));
        self.check_rules(obj, None, &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.check_type(obj);
        if !errors.is_empty() {
            return errors;
        }
        errors.extend(validate::validate(&Path::new(""), obj, Some(old), self.schema()));
        if let Some(paths) = &self.scale {
            errors.extend(scale::validate_spec(obj, paths));
            errors.extend(scale::validate_status(obj, paths));
        }
        errors.extend(self.embedded(obj));
        self.check_lists(obj, old, &mut errors);
        self.check_rules(obj, Some(old), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.check_type(obj);
        if !errors.is_empty() {
            return errors;
        }
        if let (Some(status), Some(schema)) = (obj.get("status"), self.schema().properties.get("status")) {
            errors.extend(validate::validate(&Path::new("status"), status, old.get("status"), schema));
        }
        if let Some(paths) = &self.scale {
            errors.extend(scale::validate_status(obj, paths));
        }
        self.check_lists(obj, old, &mut errors);
        self.check_rules(obj, Some(old), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let finalizers = |obj: &Value| -> BTreeSet<String> {
            let list = obj["metadata"]["finalizers"].as_array();
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let known = old.map(finalizers).unwrap_or_default();
        let about_finalizers = finalizers(obj).into_iter().filter(|name| !known.contains(name));
        let about_finalizers = about_finalizers.flat_map(|name| about_finalizer(&name));
        let forgiven = old.zip(self.rules()).map(|(old, rules)| self.evaluate(rules, obj, Some(old)));
        about_finalizers.chain(forgiven.into_iter().flat_map(|findings| findings.warnings)).collect()
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        let value = |path: &Option<JsonPath>| {
            let found = path.as_ref().and_then(|path| path.find(obj).first().copied().cloned());
            found.filter(|value| !value.is_null()).map(|value| columns::text(&value)).unwrap_or_default()
        };
        self.selectable.iter().map(|(name, path)| (*name, value(path))).collect()
    }

    fn selectable_field_names(&self) -> &[&'static str] {
        &self.selectable_names
    }

    fn shown(&self) -> &Shown {
        &self.shown
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let age = |at: &Value| match at.as_str().and_then(apimachinery::time::parse_time) {
            Some(_) => api::columns::since(Some(at), now),
            None => "<invalid>".into(),
        };
        let cells = self.columns.iter().map(|column| column.cell(obj, &age));
        std::iter::once(api::columns::name(obj)).chain(cells).collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

impl Version {
    /// Rules are looked at where the object is of the types that they are about.
    fn check_rules(&self, obj: &Value, old: Option<&Value>, errors: &mut ErrorList) {
        let Some(rules) = self.rules() else { return };
        // A new object's metadata counts too.
        let metadata = match old {
            None => objectmeta::validate(obj, self.resource.namespaced, self.name_rule()),
            Some(_) => ErrorList::new(),
        };
        match rules::unchecked(errors).or_else(|| rules::unchecked(&metadata)) {
            Some(why) => errors.push(why),
            None => errors.extend(self.evaluate(rules, obj, old).errors),
        }
    }

    /// Doubles in lists are complained about unless they were there before.
    fn check_lists(&self, obj: &Value, old: &Value, errors: &mut ErrorList) {
        let found = listtype::validate(obj, self.schema());
        if !found.is_empty() && listtype::validate(old, self.schema()).is_empty() {
            errors.extend(found);
        }
    }
}
