//! CEL with the libraries of Kubernetes: expressions are compiled once against declared variables, and evaluated often
//! over JSON where it lies, within a cost.
//!
//! ```
//! use apimachinery::json;
//! use cel::{Bindings, Env, PER_CALL_LIMIT, Type, Val};
//!
//! let program = Env::new().with("self", Type::Dyn).compile("self.replicas <= self.max").unwrap();
//! let object = json!({"replicas": 2, "max": 3});
//! let evaluated = program.evaluate(&Bindings::new().set("self", &object), PER_CALL_LIMIT);
//! assert!(matches!(evaluated.result, Ok(Val::Bool(true))));
//! ```

mod ast;
mod check;
mod cost;
mod env;
mod escape;
mod estimate;
mod eval;
mod lexer;
pub mod library;
mod macros;
mod parser;
mod shape;
mod signature;
mod source;
pub mod strfmt;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use cost::{BUDGET, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT};
pub use env::{Bindings, Env, Evaluated, Named, Program, VARIABLES};
pub use escape::escape;
pub use estimate::{Extent, Parts};
pub use eval::EvalError;
pub use shape::{Listed, Shape};
pub use source::{CompileError, Issue};
pub use types::{ObjectType, Type};
pub use value::{Key, Struct, Text, Val};
