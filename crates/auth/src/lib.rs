//! Who is it, and may they: authentication by client certificate, front proxy and token, authorization by RBAC and for nodes, and
//! the roles every cluster starts with; what the files say that add others who know users and others who decide.
//!
//! Everything here is a pure function of what the request presents and of objects handed in; nothing is fetched.

pub mod attributes;
pub mod authenticator;
pub mod authorizationconfiguration;
pub mod authorizer;
pub mod bootstrap;
pub mod bootstraptoken;
pub mod certificate;
pub mod configfile;
pub mod deviceclaims;
pub mod jwt;
pub mod matchconditions;
pub mod node;
pub mod oidc;
pub mod pem;
pub mod rbac;
pub mod requestheader;
pub mod serviceaccount;
pub mod subjectaccessreview;
pub mod tokenfile;
pub mod user;

pub use attributes::{Attributes, Decision};
pub use authenticator::{Anonymous, Authenticator, Certificate, Identified, Objects, Presented};
pub use authorizer::Authorizer;
pub use bootstrap::bootstrap_objects;
pub use rbac::{PolicyRule, RbacIndex};
pub use requestheader::RequestHeader;
pub use user::UserInfo;
