//! A kind as the pipeline holds it: a row of the catalogue, or one that a CustomResourceDefinition made.

use std::ops::Deref;
use std::sync::Arc;

use api::catalogue::Kind;

use crate::customresource::CustomKind;

/// Cheap to hand on: a static reference, or a share in a row that goes when its last user does.
#[derive(Clone, Debug)]
pub enum KindRef {
    BuiltIn(&'static Kind),
    Custom(Arc<CustomKind>),
}

impl Deref for KindRef {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        match self {
            KindRef::BuiltIn(kind) => kind,
            KindRef::Custom(custom) => &custom.kind,
        }
    }
}

impl From<&'static Kind> for KindRef {
    fn from(kind: &'static Kind) -> KindRef {
        KindRef::BuiltIn(kind)
    }
}

impl KindRef {
    /// The version in which objects are merged, prepared, validated and shown to admission. For built-in kinds that is
    /// the one the store keeps, for custom ones that of the request, as upstream has it.
    pub fn hub(&self) -> &Kind {
        match self {
            KindRef::BuiltIn(kind) => kind.stored(),
            KindRef::Custom(custom) => &custom.kind,
        }
    }

    /// The row whose strategy judges what is written in the hub's version: the hub's, but for kinds that each version
    /// holds to rules of its own.
    pub fn judge(&self) -> &Kind {
        match self {
            KindRef::BuiltIn(kind) if kind.strategy.judges_its_version() => kind,
            _ => self.hub(),
        }
    }

    /// What a CustomResourceDefinition adds to the row.
    pub fn custom(&self) -> Option<&Arc<CustomKind>> {
        match self {
            KindRef::BuiltIn(_) => None,
            KindRef::Custom(custom) => Some(custom),
        }
    }
}
