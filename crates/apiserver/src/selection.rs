//! Which objects a list or watch is about: label and field selectors, matched against what the store knows of an
//! entry without decoding it.

use api::catalogue::Kind;
use apimachinery::{Status, Value, fields, labels};
use store::Entry;

use crate::conversion;
use crate::kind::KindRef;
use crate::query::ListOptions;

/// Both selectors of one request.
pub struct Selection {
    kind: KindRef,
    labels: labels::Selector,
    fields: fields::Selector,
}

impl Selection {
    pub fn parse(kind: &KindRef, options: &ListOptions) -> Result<Selection, Status> {
        let labels =
            labels::parse(&options.label_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        let fields =
            fields::parse(&options.field_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        for term in fields.terms() {
            if !kind.is_selectable(&term.field) {
                return Err(unknown_field(kind, &term.field));
            }
        }
        Ok(Selection { kind: kind.clone(), labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name a field selector allows, if it allows one only.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Whether an entry may be let through; one that is still open must be asked again with [`Selection::matches_shown`].
    pub fn matches(&self, entry: &Entry) -> bool {
        self.is_everything() || (self.labels.matches(&entry.meta.labels) && self.fields_match(entry))
    }

    fn fields_match(&self, entry: &Entry) -> bool {
        if self.fields.is_empty() {
            return true;
        }
        if !conversion::is_stored_version(&self.kind) {
            let object = conversion::decode_entry(&self.kind, entry);
            return self.fields_match_object(&object);
        }
        if self.is_open(entry) {
            return true;
        }
        // What a custom kind offers may have changed since the entry was written.
        if self.asks_custom_fields() {
            return self.fields_match_object(&conversion::decode(&entry.bytes));
        }
        self.fields.matches(|field| match field {
            "metadata.name" => Some(&*entry.key.name),
            "metadata.namespace" => Some(&*entry.key.namespace),
            other => entry.meta.field(other),
        })
    }

    fn asks_custom_fields(&self) -> bool {
        let is_known = |term: &fields::Term| term.field.starts_with("metadata.");
        self.kind.custom().is_some() && !self.fields.terms().iter().all(is_known)
    }

    /// Whether only the object in the version asked for can tell: entries of custom kinds may have to be converted.
    pub fn is_open(&self, entry: &Entry) -> bool {
        let custom = self.kind.custom();
        self.asks_custom_fields()
            && custom.is_some_and(|custom| !custom.is_current(&entry.bytes, Some(entry.revision)))
    }

    /// Whether the fields of an open entry match, as the version asked for shows it.
    pub fn matches_shown(&self, shown: &[u8]) -> bool {
        self.fields_match_object(&conversion::decode(shown))
    }

    fn fields_match_object(&self, object: &Value) -> bool {
        self.fields.terms().iter().all(|term| {
            let value = self.kind.selectable_field(object, &term.field).unwrap_or_default();
            (value == term.value) == term.equal
        })
    }
}

/// Each kind's conversion of field labels has its own words; most kinds have none and share the default's
/// (`DefaultMetaV1FieldSelectorConversion`).
fn unknown_field(kind: &Kind, field: &str) -> Status {
    let resource = &kind.resource;
    Status::bad_request(if *resource == api::resource::JOBS {
        format!("field label {field:?} not supported for Job")
    } else if *resource == api::resource::RESOURCE_SLICES {
        format!("field label not supported for {}, Kind={}: {field}", resource.api_version(), resource.kind)
    } else if kind.strategy.selectable_field_names().is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    })
}
