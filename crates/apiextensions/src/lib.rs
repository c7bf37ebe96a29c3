//! Custom resources without a server: what a CustomResourceDefinition says, and what its schemas do to objects.
//!
//! Pure functions of a definition and of objects. Nothing here stores, serves or speaks HTTP.

// What a definition says.
pub mod conditions;
pub mod definition;
pub mod names;

// Its schemas.
pub mod declare;
pub mod fieldpath;
pub mod size;
pub mod structural;
pub mod typed;

// What they do to objects.
pub mod default;
pub mod embedded;
pub mod expression;
pub mod listtype;
pub mod prune;
pub mod rules;
pub mod validate;

// How objects and schemas are shown.
pub mod columns;
pub mod jsonpath;
pub mod openapi;
pub mod scale;

pub use definition::Definition;
pub use structural::Structural;

#[cfg(test)]
mod testing;
