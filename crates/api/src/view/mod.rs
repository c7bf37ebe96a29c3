//! Slim typed views of the kinds, for those who decide: controllers, scheduler, kubelet, proxy. A view skips what it
//! does not name, so it must never be written back whole; writers patch, or carry the part they copy as a `Value`.

pub mod admissionregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod condition;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod dynamicresource;
pub mod networking;
pub mod policy;
pub mod storage;

use apimachinery::Value;
use apimachinery::meta::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::resource::Resource;

/// Reads an empty list that upstream writes as null: of fields that it always writes, protobuf loses the difference.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// Anything with metadata, as an informer can cache it.
pub trait Object: DeserializeOwned + Send + Sync + 'static {
    fn meta(&self) -> &ObjectMeta;
}

/// A typed view of one kind.
pub trait View: Object {
    const RESOURCE: Resource;
}

/// Just the metadata of an object of any kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartialObject {
    pub metadata: ObjectMeta,
}

impl Object for PartialObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// A view with the whole object it was read from, for who writes that back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole<V> {
    pub view: V,
    pub object: Value,
}

impl<'de, V: DeserializeOwned> Deserialize<'de> for Whole<V> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(input)?;
        let view = V::deserialize(&object).map_err(serde::de::Error::custom)?;
        Ok(Whole { view, object })
    }
}

impl<V: Object> Object for Whole<V> {
    fn meta(&self) -> &ObjectMeta {
        self.view.meta()
    }
}

impl<V: View> View for Whole<V> {
    const RESOURCE: Resource = V::RESOURCE;
}

macro_rules! view {
    ($($kind:ty => $resource:ident;)*) => {
        $(impl crate::view::Object for $kind {
            fn meta(&self) -> &apimachinery::meta::ObjectMeta {
                &self.metadata
            }
        }

        impl crate::view::View for $kind {
            const RESOURCE: crate::resource::Resource = crate::resource::$resource;
        })*
    };
}
use view;

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::View;
    use super::batch::Job;
    use super::core::{Node, PersistentVolume, Pod};
    use super::discovery::EndpointSlice;
    use super::dynamicresource::ResourceClaim;
    use super::storage::CsiNode;

    /// Go's clients write what they leave unset of a field without `omitempty` as null.
    #[test]
    fn a_list_that_upstream_writes_as_null_is_empty() {
        fn check<V: View>(object: apimachinery::Value) {
            if let Err(error) = apimachinery::from_value::<V>(object) {
                panic!("{}: {error}", V::RESOURCE.kind);
            }
        }
        check::<EndpointSlice>(json!({"endpoints": null, "ports": null}));
        check::<EndpointSlice>(json!({"endpoints": [{"addresses": null}]}));
        check::<CsiNode>(json!({"spec": {"drivers": null}}));
        check::<CsiNode>(json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": null}]}}));
        check::<Pod>(json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": null}}]}}));
        check::<Node>(json!({"status": {"images": [{"names": null}]}}));
        check::<PersistentVolume>(
            json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": null}}}}),
        );
        check::<ResourceClaim>(json!({"spec": {"devices": {"requests": null}}}));
        check::<ResourceClaim>(json!({"status": {"devices": [{"driver": "d", "conditions": null}]}}));
        check::<Job>(json!({"spec": {"podFailurePolicy": {"rules": null}}}));
    }
}
