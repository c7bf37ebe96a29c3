//! Slim typed views of the kinds, for those who decide: controllers, scheduler, kubelet, proxy. A view skips what it
//! does not name, so it must never be written back whole; writers patch, or carry the part they copy as a `Value`.

pub mod apps;
pub mod coordination;
pub mod core;
pub mod discovery;

use apimachinery::meta::ObjectMeta;
use serde::de::DeserializeOwned;

use crate::resource::Resource;

/// A typed view of one kind, as informers cache it.
pub trait View: DeserializeOwned + Send + Sync + 'static {
    const RESOURCE: Resource;

    fn meta(&self) -> &ObjectMeta;
}

macro_rules! view {
    ($($kind:ty => $resource:ident;)*) => {
        $(impl crate::view::View for $kind {
            const RESOURCE: crate::resource::Resource = crate::resource::$resource;

            fn meta(&self) -> &apimachinery::meta::ObjectMeta {
                &self.metadata
            }
        })*
    };
}
use view;
