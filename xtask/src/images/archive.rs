//! OCI archives: an image layout in a tar file. Equal files give an equal archive, byte for byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::Image;
use super::rootfs::{Member, Rootfs};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn write(image: &Image, path: &Path) -> anyhow::Result<()> {
    let layer = layer(&image.files)?;
    let packed = gzip(&layer)?;
    let config = serde_json::to_vec(&config(image, &digest(&layer)))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &packed)],
    }))?;
    let mut named = descriptor(MANIFEST, &manifest);
    named["annotations"] = json!({"io.containerd.image.name": image.reference(), "org.opencontainers.image.ref.name": image.tag});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}))?;

    // A reader never sees half an archive: it appears under its name when it is whole.
    let unfinished = path.with_extension("unfinished");
    let mut tar = Builder::new(BufWriter::new(File::create(&unfinished)?));
    append(&mut tar, Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, Path::new("index.json"), &index)?;
    for blob in [&manifest, &config, &packed] {
        append(&mut tar, &Path::new("blobs").join(digest(blob).replace(':', "/")), blob)?;
    }
    tar.into_inner()?.flush()?;
    fs::rename(&unfinished, path)?;
    Ok(())
}

fn config(image: &Image, diff_id: &str) -> Value {
    let ports: serde_json::Map<String, Value> =
        image.ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
    let mut config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": image.entrypoint,
        "Cmd": image.command,
        "ExposedPorts": ports,
        "WorkingDir": "/",
    });
    if let Some(signal) = image.stop_signal {
        config["StopSignal"] = signal.into();
    }
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    })
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content)?;
    encoder.finish()
}

fn layer(files: &Rootfs) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut made = BTreeSet::new();
    for (path, member) in files.members() {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.retain(|dir| !dir.as_os_str().is_empty());
        for dir in parents.into_iter().rev() {
            if made.insert(dir.to_owned()) {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), dir, io::empty())?;
            }
        }
        match member {
            Member::File(from) => {
                let content = fs::read(from)?;
                let mode = fs::metadata(from)?.permissions().mode() & 0o7777;
                let mut header = header(EntryType::Regular, mode, content.len());
                tar.append_data(&mut header, path, content.as_slice())?;
            }
            Member::Text { content, mode } => {
                let mut header = header(EntryType::Regular, *mode, content.len());
                tar.append_data(&mut header, path, content.as_bytes())?;
            }
            Member::Directory { mode } => {
                made.insert(path.to_owned());
                tar.append_data(&mut header(EntryType::Directory, *mode, 0), path, io::empty())?;
            }
            Member::Symlink(to) => {
                tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, to)?;
            }
        }
    }
    tar.into_inner()
}

fn append<W: Write>(tar: &mut Builder<W>, path: &Path, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o644, content.len()), path, content)
}

/// Owned by root, dated 1970.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_what_they_hold_and_once() {
        let mut files = Rootfs::default();
        files.text("/a/b/c", "text", 0o644);
        files.text("/a/b/d", "text", 0o755);
        files.dir("/a/e", 0o700);
        let layer = layer(&files).expect("made in memory");
        let mut archive = tar::Archive::new(layer.as_slice());
        let names: Vec<String> = archive
            .entries()
            .expect("a tar file")
            .map(|entry| entry.expect("whole").path().expect("text").display().to_string())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "a/e"]);
    }
}
