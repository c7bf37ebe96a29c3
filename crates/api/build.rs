//! Makes the schema table of the built-in kinds: upstream's `.proto` texts for 1.35, joined with this crate's overlay
//! for what 1.36 adds and for what the texts do not say, written as one compact binary table.

#[path = "build/blob.rs"]
mod blob;
#[path = "build/comments.rs"]
mod comments;
#[path = "build/join.rs"]
mod join;
#[path = "build/overlay.rs"]
mod overlay;
#[path = "build/sources.rs"]
mod sources;
#[path = "build/table.rs"]
mod table;

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    for watched in ["build.rs", "build", "overlay", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let overlay_dir = here.join("overlay");
    let read = |name: &str| fs::read_to_string(overlay_dir.join(name)).expect("the overlay is readable");
    let overlay = overlay::parse(&read("presence.txt"), &read("enums.txt"));
    let set = sources::load(&here.join("Cargo.toml"), &overlay_dir, &overlay.packages());
    let types = join::join(&sources::messages(&set), &overlay);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("schema.bin"), blob::write(&types)).expect("the output folder is writable");
    // For tests only: an independent decoder checks the codec against these.
    fs::write(out.join("descriptors.bin"), sources::encode(set)).expect("the output folder is writable");
}
