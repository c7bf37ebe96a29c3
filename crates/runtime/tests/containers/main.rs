//! Real containers from a busybox image, through the CRI as the kubelet uses it. Needs root.

mod apparmor;
mod cri;
mod harness;
mod image_volumes;
mod lifecycle;
mod restart;
mod security;
mod streams;
