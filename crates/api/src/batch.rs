//! The group `batch`: work that ends, and when it begins.

pub mod cronjob;
pub mod indexes;
pub mod job;
pub mod schedule;
mod status;
mod validation;
