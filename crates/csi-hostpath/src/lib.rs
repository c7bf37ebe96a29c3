//! An example of a CSI driver: volumes are folders of the node, and block devices are files behind loop devices.
//!
//! `driver` answers CSI's three services and registers with the kubelet; `sidecar` is what upstream's provisioner,
//! attacher and resizer are to other drivers: it turns objects of the cluster into calls of this one. One process per
//! node is both.

pub mod driver;
pub mod sidecar;
