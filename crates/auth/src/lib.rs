//! Who is it, and may they: authentication by client certificate, service account token and bootstrap token, authorization by RBAC
//! and for nodes, and the roles every cluster starts with.
//!
//! Everything here is a pure function of what the request presents and of objects handed in; nothing is fetched.

pub mod attributes;
pub mod authenticator;
pub mod authorizer;
pub mod bootstrap;
pub mod bootstraptoken;
pub mod certificate;
pub mod jwt;
pub mod node;
pub mod rbac;
pub mod serviceaccount;
pub mod tokenfile;
pub mod user;

pub use attributes::{Attributes, Decision};
pub use authenticator::{Authenticator, Certificate, Objects, Presented};
pub use authorizer::Authorizer;
pub use bootstrap::bootstrap_objects;
pub use rbac::{PolicyRule, RbacIndex};
pub use user::UserInfo;
