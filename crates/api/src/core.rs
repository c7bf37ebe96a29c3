//! The core group (`v1`): what each of its kinds adds to the pipeline.

pub mod pod;
