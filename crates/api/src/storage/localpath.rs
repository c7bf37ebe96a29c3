//! What the parts of the built-in provisioner agree on: the controller makes and deletes PersistentVolumes, the kubelet
//! of the volume's node keeps the directory behind each.

/// Names the provisioner in StorageClasses, and on the volumes that it made.
pub const PROVISIONER: &str = "coxswain.dev/local-path";
/// Keeps a volume until its node has removed the data.
pub const FINALIZER: &str = "coxswain.dev/local-path";
/// On a Node: the directory that holds its volumes.
pub const ROOT: &str = "coxswain.dev/local-path-root";
/// The label by whose value a volume says which node it is on.
pub const NODE_LABEL: &str = "kubernetes.io/hostname";
