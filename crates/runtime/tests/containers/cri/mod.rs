//! What CRI clients rely on beyond a container's life: lists and filters, codes of errors, images, what `--verbose`
//! shows, streams by their URLs. Follows the calls of critest's conformance specs.

mod errors;
mod images;
mod lists;
mod runtime;
mod urls;
