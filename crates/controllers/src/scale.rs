//! The scale of whatever has one, and the resource behind a kind (follows client-go's `scale` and `RESTMapper`).

use api::catalogue;
use api::resource::Resource;
use apimachinery::GroupVersion;
use apimachinery::meta::ObjectMeta;
use client::Client;
use client::error::Result;
use http::Method;
use serde::Deserialize;

use crate::discovery::discover;

/// `autoscaling/v1`'s Scale, which every `scale` subresource answers with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Scale {
    pub metadata: ObjectMeta,
    pub spec: ScaleSpec,
    pub status: ScaleStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScaleSpec {
    pub replicas: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScaleStatus {
    pub replicas: i32,
    /// A label selector in its textual form.
    pub selector: String,
}

pub async fn get(client: &Client, resource: Resource, namespace: &str, name: &str) -> Result<Scale> {
    client.json(Method::GET, &format!("{}/scale", resource.path(namespace, name)), None).await
}

/// The resource of a kind: a built-in one as written, another in the version that its group prefers; `None` if the
/// server has no such kind.
pub async fn resource_of(
    client: &Client,
    group_version: &GroupVersion,
    kind: &str,
) -> Result<Option<Resource>> {
    if let Some(row) = catalogue::by_kind(&group_version.group, &group_version.version, kind) {
        return Ok(Some(row.resource));
    }
    let discovered = discover(client).await?.resources.into_iter().map(|served| served.resource);
    let mut same =
        discovered.filter(|resource| resource.group == group_version.group && resource.kind == kind);
    Ok(same.next())
}
