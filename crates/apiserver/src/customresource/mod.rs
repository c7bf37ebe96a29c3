//! Custom resources: the kinds that CustomResourceDefinitions make at run time, served by the one pipeline.

mod kind;

pub use kind::CustomKind;
