//! What the end-to-end tests stand on: a cluster of one's own for each test, on a machine of its own made of
//! namespaces, with real `kubectl` in front and real containers behind.
//!
//! Nothing of a cluster's code is used here: the tests know the `cox` program, `kubectl` and the network, as a user
//! does.

mod cluster;
mod containerd;
pub mod faults;
mod http;
mod images;
mod kubectl;
mod load;
mod machine;
mod process;
mod program;
mod random;
mod registry;
mod second_node;
mod slots;
mod traces;

pub use cluster::{Cluster, Runtime};
pub use http::{Answer, get};
pub use images::archive;
pub use kubectl::Kubectl;
pub use load::{Load, Report};
pub use machine::{Machine, NODE_IP, NODE_NAME, Process, SECOND_NAME};
pub use process::{Background, Finished};
pub use program::{beside_the_tests, kubectls};
pub use registry::Registry;
pub use second_node::SecondNode;
pub use traces::Traces;
