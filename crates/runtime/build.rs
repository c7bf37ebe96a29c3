//! Generates the CRI v1 messages, clients and servers from the `.proto` text that the `k8s-cri` package ships.
//! That package is listed as a dependency that is never compiled, so cargo locks and downloads it; no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let proto_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(proto_dir.join("v1.proto"), cri_proto()?)?;
    println!("cargo::rerun-if-changed=build.rs");
    let mut compiler = protox::Compiler::new([&proto_dir])?;
    // Upstream's comments hold indented examples that rustdoc would run as Rust.
    compiler.include_source_info(false);
    compiler.open_file("v1.proto")?;
    tonic_prost_build::configure()
        // Sandbox and container configurations are kept on disk as JSON.
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The package's text, with the field for the path within an image that Kubernetes 1.33 brought.
fn cri_proto() -> Result<String, Box<dyn Error>> {
    const FIELD: &str = "ImageSpec image = 9;\n";
    let text = std::fs::read_to_string(cri_proto_dir()?.join("v1.proto"))?;
    if text.contains("image_sub_path") {
        return Ok(text);
    }
    let (before, after) = text.split_once(FIELD).ok_or("package k8s-cri has no mounts of images")?;
    Ok(format!("{before}{FIELD}    string image_sub_path = 10;\n{after}"))
}

fn cri_proto_dir() -> Result<PathBuf, Box<dyn Error>> {
    let metadata = cargo_metadata::MetadataCommand::new().other_options(["--offline".to_owned()]).exec()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "k8s-cri")
        .ok_or("package k8s-cri is not in the dependency graph")?;
    let root = package.manifest_path.parent().ok_or("package k8s-cri has no folder")?;
    Ok(root.join("proto").into())
}
