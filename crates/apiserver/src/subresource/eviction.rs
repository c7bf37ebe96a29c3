//! Evicting a pod: a deletion asked for by name. No kind of the catalogue holds disruption budgets, so none can object.
//! Follows `EvictionREST.Create`.

use apimachinery::meta::str_at;
use apimachinery::status::StatusDetails;
use apimachinery::{Status, Value};
use bytes::Bytes;
use http::Response;

use crate::admit;
use crate::body::Body;
use crate::call::Call;
use crate::delete;
use crate::deletion::DeleteOptions;
use crate::kind::KindRef;
use crate::negotiation::format_of_request;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::wire::{self, Document, Expected};
use crate::write::Place;

const EXPECTED: Expected =
    Expected { type_name: "io.k8s.api.policy.v1.Eviction", api_version: "policy/v1", kind: "Eviction" };

pub async fn evict(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let write = WriteOptions::parse(&call.query, "CreateOptions")?;
    let format = format_of_request(&call.headers)?;
    let mut eviction = wire::decode_body(EXPECTED, format, body, write.field_validation, &mut call.warnings)?;
    let named = str_at(&eviction, &["metadata", "name"]);
    if !named.is_empty() && named != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let place = Place::of(call, kind, Part::Main);
    admit::posted(call, &place, "eviction", &mut eviction, write.dry_run).await?;
    let options = eviction.get("deleteOptions").cloned().unwrap_or(Value::Null);
    let options: DeleteOptions = match options {
        Value::Null => DeleteOptions::default(),
        options => serde_json::from_value(options).map_err(|e| Status::bad_request(e.to_string()))?,
    };
    let dry_run = options.validate()? || write.dry_run;
    delete::delete_object(call, &place, &options, dry_run).await?;
    call.target = call.target.plain();
    let mut success = Status::success(StatusDetails::default());
    success.details = None;
    success.code = 201;
    call.respond(201, Document::status(&success))
}
