//! API groups that others serve behind this server: an extension server that an APIService leads to, or a backend within
//! this process. Follows `k8s.io/kube-aggregator`.
//!
//! Which group version goes where is read from the APIServices in the store when a request comes; a task follows them to
//! tell which can be reached and what they serve.

mod ask;
mod availability;
mod backend;
mod discovery;
mod follow;
mod proxy;
mod route;
pub mod tls;

pub use availability::is_available;
pub use backend::{Backend, BackendFuture, GroupServed};
pub use discovery::Remote;
pub use follow::{discover_in_process, run};
pub use proxy::{REMOTE, serve};
pub use route::Aggregator;
pub use tls::{FRONT_PROXY_CLIENT, FrontProxy};
