//! The kinds: their names, the catalogue that everything derives from, what each kind adds to the request pipeline,
//! and slim typed views for those who decide.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod autoscaling;
pub mod batch;
pub mod bootstraptoken;
pub mod catalogue;
pub mod certificates;
pub mod columns;
pub mod conditions;
pub mod conversion;
pub mod coordination;
pub mod core;
pub mod defaults;
pub mod discovery;
pub mod dynamicresource;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod objectmeta;
pub mod policy;
pub mod quota;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod schema;
pub mod shown;
pub mod storage;
pub mod strategy;
#[cfg(test)]
mod testing;
pub mod validation;
pub mod view;

pub use catalogue::{CATALOGUE, Kind, Subresource};
pub use conversion::convert;
pub use resource::Resource;
pub use schema::schema;
pub use strategy::{Column, Strategy};
