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

/// What newer versions of Kubernetes brought: after the line of a message, these fields.
const NEWER_FIELDS: [(&str, &str, &str); 5] = [
    // 1.33: the path within an image.
    ("message Mount {", "ImageSpec image = 9;\n", "    string image_sub_path = 10;\n"),
    // 1.34: time lost for want of a resource.
    ("message CpuUsage {", "UInt64Value usage_nano_cores = 3;\n", "    PsiStats psi = 4;\n"),
    ("message MemoryUsage {", "UInt64Value major_page_faults = 7;\n", "    PsiStats psi = 8;\n"),
    ("message ContainerStats {", "SwapUsage swap = 5;\n", "    IoUsage io = 6;\n"),
    ("message LinuxPodSandboxStats {", "repeated ContainerStats containers = 5;\n", "    IoUsage io = 6;\n"),
];

const NEWER_MESSAGES: &str = "
message IoUsage {
    int64 timestamp = 1;
    PsiStats psi = 2;
}

message PsiStats {
    PsiData Full = 1;
    PsiData Some = 2;
}

message PsiData {
    uint64 Total = 1;
    double Avg10 = 2;
    double Avg60 = 3;
    double Avg300 = 4;
}
";

/// The package's text with what is missing in it.
fn cri_proto() -> Result<String, Box<dyn Error>> {
    let mut text = std::fs::read_to_string(cri_proto_dir()?.join("v1.proto"))?;
    for (message, line, field) in NEWER_FIELDS {
        let missing = || format!("package k8s-cri has no `{}` in `{message}`", line.trim());
        let start = text.find(message).ok_or_else(missing)?;
        let end = start + text[start..].find(line).ok_or_else(missing)? + line.len();
        if !text[end..].trim_start().starts_with(field.trim()) {
            text.insert_str(end, field);
        }
    }
    if !text.contains("message PsiStats ") {
        text.push_str(NEWER_MESSAGES);
    }
    Ok(text)
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
