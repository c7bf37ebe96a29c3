//! A large image made of this machine's own files, in as many versions as one wants: each version's layers differ in
//! their last bytes, so that nothing of one is taken for another's.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The blocks of a tar.
const BLOCK_BYTES: usize = 512;
/// Two empty blocks end a tar.
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];
/// Larger files would make a layer of one or two.
const FILE_BYTES_MAX: u64 = 8 << 20;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What all versions have in common.
pub struct Image {
    layers: Vec<Layer>,
}

struct Layer {
    /// gzip of a tar that has no end yet.
    path: PathBuf,
    packed: Counted,
    plain: Counted,
}

/// What was written so far.
#[derive(Clone, Default)]
struct Counted {
    hash: Sha256,
    bytes: u64,
}

/// One version, ready to be served.
pub struct Version {
    pub manifest: Bytes,
    pub blobs: Vec<Blob>,
}

/// A blob is a file, if any, and what follows.
#[derive(Clone)]
pub struct Blob {
    pub digest: String,
    pub file: Option<PathBuf>,
    pub tail: Bytes,
    pub bytes: u64,
}

impl Image {
    /// Packs files from below `from` until there are `bytes` of them.
    pub fn make(dir: &Path, from: &Path, bytes: u64, layers: usize) -> Result<Image> {
        let mut files = Vec::new();
        let mut wanted = bytes;
        collect(from, &mut wanted, &mut files)?;
        ensure!(wanted == 0, "{} holds too few files for such an image", from.display());
        let each = files.len().div_ceil(layers.max(1));
        let pack =
            |(index, files): (usize, &[PathBuf])| Layer::pack(&dir.join(format!("layer-{index}")), files);
        Ok(Image { layers: files.chunks(each).enumerate().map(pack).collect::<Result<_>>()? })
    }

    pub fn plain_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.plain.bytes).sum()
    }

    pub fn packed_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.packed.bytes).sum()
    }

    pub fn version(&self, number: usize) -> Result<Version> {
        let ends: Vec<(Blob, String)> =
            self.layers.iter().map(|layer| layer.version(number)).collect::<Result<_>>()?;
        let diff_ids: Vec<&String> = ends.iter().map(|(_, diff_id)| diff_id).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Blob::of(serde_json::to_vec(&config)?.into());
        let mut blobs: Vec<Blob> = ends.into_iter().map(|(blob, _)| blob).collect();
        let layers: Vec<Value> = blobs.iter().map(|blob| blob.descriptor(LAYER_TYPE)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": config.descriptor(CONFIG_TYPE), "layers": layers,
        });
        blobs.push(config);
        Ok(Version { manifest: serde_json::to_vec(&manifest)?.into(), blobs })
    }
}

impl Layer {
    fn pack(path: &Path, files: &[PathBuf]) -> Result<Layer> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let packed = Counting { inner: BufWriter::new(file), counted: Counted::default() };
        let mut plain =
            Counting { inner: GzEncoder::new(packed, Compression::default()), counted: Counted::default() };
        for (number, source) in files.iter().enumerate() {
            // A file that has gone or cannot be read is left out.
            let Ok(content) = fs::read(source) else { continue };
            member(&mut plain, &format!("files/{number}"), &content)?;
        }
        let Counting { inner: encoder, counted: plain } = plain;
        let Counting { mut inner, counted: packed } = encoder.finish()?;
        inner.flush()?;
        Ok(Layer { path: path.to_owned(), packed, plain })
    }

    /// Its blob in a version, and the digest of what that unpacks to.
    fn version(&self, number: usize) -> Result<(Blob, String)> {
        let mut end = Vec::new();
        member(&mut end, &format!("version-{number}"), &[])?;
        end.extend_from_slice(&END);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&end)?;
        let tail = encoder.finish()?;
        let (mut packed, mut plain) = (self.packed.clone(), self.plain.clone());
        packed.add(&tail);
        plain.add(&end);
        let blob = Blob {
            bytes: packed.bytes,
            digest: packed.digest(),
            file: Some(self.path.clone()),
            tail: tail.into(),
        };
        Ok((blob, plain.digest()))
    }
}

impl Blob {
    fn of(content: Bytes) -> Blob {
        let mut counted = Counted::default();
        counted.add(&content);
        Blob { bytes: counted.bytes, digest: counted.digest(), file: None, tail: content }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes})
    }
}

/// `sha256:..`
pub fn digest(bytes: &[u8]) -> String {
    Blob::of(Bytes::copy_from_slice(bytes)).digest
}

impl Counted {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn digest(self) -> String {
        let hex: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

/// Counts what is written through it.
struct Counting<W> {
    inner: W,
    counted: Counted,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.counted.add(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn member(tar: &mut impl Write, path: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    tar.write_all(header.as_bytes())?;
    tar.write_all(content)?;
    let padding = content.len().next_multiple_of(BLOCK_BYTES) - content.len();
    std::io::copy(&mut std::io::repeat(0).take(padding as u64), tar)?;
    Ok(())
}

/// Files in the order of their names, until `wanted` bytes are found.
fn collect(dir: &Path, wanted: &mut u64, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths {
        if *wanted == 0 {
            return Ok(());
        }
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            collect(&path, wanted, found)?;
        } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX {
            *wanted = wanted.saturating_sub(metadata.len());
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_and_are_what_their_digests_say() {
        let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["a", "b", "c"] {
            fs::write(source.path().join(name), name.repeat(1000)).unwrap();
        }
        let image = Image::make(dir.path(), source.path(), 3000, 2).unwrap();
        let versions = [1, 2].map(|number| image.version(number).unwrap());
        assert_ne!(versions[0].manifest, versions[1].manifest);
        for blob in &versions[0].blobs {
            let mut content = blob.file.as_ref().map(|file| fs::read(file).unwrap()).unwrap_or_default();
            content.extend_from_slice(&blob.tail);
            assert_eq!((digest(&content), content.len() as u64), (blob.digest.clone(), blob.bytes));
        }
        let layer = &versions[0].blobs[0];
        let mut packed = fs::read(layer.file.as_ref().unwrap()).unwrap();
        packed.extend_from_slice(&layer.tail);
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
        let mut archive = tar::Archive::new(plain.as_slice());
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["files/0", "files/1", "version-1"]);
    }
}
