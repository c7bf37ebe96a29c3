//! A small driver of dynamic resources, for tests and as an example: it publishes devices that are nothing but names, and
//! gives containers that get one an environment variable and a device node that swallows what is written to it.

pub mod driver;
pub mod slices;
