//! Images from tar archives: OCI layouts, what `docker save` writes, either of them compressed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use tar::{Archive, EntryType};

use super::layer::{self, Hashing, decompress};
use super::manifest::{DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, ImageManifest, Manifest, Resolved};
use super::store::Staging;
use super::{Error, ImageRef, Reference, Result, Store};

/// Members an archive may have; `docker save` writes three per layer.
const MEMBERS_MAX: usize = 10_000;
/// Lists of manifests within lists.
const NESTING_MAX: usize = 4;
/// Links between members that are followed.
const LINKS_MAX: usize = 8;
const DOCKER_MANIFEST: &str = "manifest.json";
const OCI_INDEX: &str = "index.json";
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Stores every image of an archive. A damaged archive leaves nothing behind.
pub fn import(store: &Store, reader: impl Read) -> Result<Vec<ImageRef>> {
    let spool = store.stage()?;
    let members = Members::spool(reader, &spool.dir)?;
    let found = if members.contains(DOCKER_MANIFEST) {
        docker_images(&members)?
    } else if members.contains(OCI_INDEX) {
        oci_images(&members)?
    } else {
        return Err(Error::malformed("archive", "neither an OCI layout nor a Docker archive"));
    };
    if found.is_empty() {
        return Err(Error::malformed("archive", "it holds no image"));
    }
    // All are unpacked and verified before the first becomes visible.
    let staged = found.into_iter().map(|image| image.stage(store, &members)).collect::<Result<Vec<_>>>()?;
    let mut stored = Vec::new();
    for (image, staging) in staged {
        let mut staging = Some(staging);
        let names: Vec<Option<&Reference>> =
            if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            let staging = match staging.take() {
                Some(staging) => staging,
                None => store.stage()?,
            };
            stored.push(store.commit(staging, &image.config, name, image.manifest_digest.as_deref())?);
        }
    }
    Ok(stored)
}

/// An image found in an archive.
struct Found {
    names: Vec<Reference>,
    config: Vec<u8>,
    layers: Vec<LayerMember>,
    /// Of the list of manifests, if there is one.
    manifest_digest: Option<String>,
}

struct LayerMember {
    member: String,
    /// Digest of the member as it is, if the archive states one.
    digest: Option<String>,
}

impl Found {
    fn stage(self, store: &Store, members: &Members) -> Result<(Found, Staging)> {
        let diff_ids = ImageConfig::parse(&self.config)?.rootfs.diff_ids;
        if diff_ids.len() != self.layers.len() {
            let reason = format!("{} layers for {} layer ids", self.layers.len(), diff_ids.len());
            return Err(Error::malformed("image", reason));
        }
        let mut staging = store.stage()?;
        for (layer, diff_id) in self.layers.iter().zip(&diff_ids) {
            if let Some(digest) = &layer.digest {
                members.verify(&layer.member, digest)?;
            }
            if !staging.has(diff_id) {
                staging.unpack(members.open(&layer.member)?, Some(diff_id))?;
            }
        }
        Ok((self, staging))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn docker_images(members: &Members) -> Result<Vec<Found>> {
    let bytes = members.read(DOCKER_MANIFEST)?;
    let images: Vec<DockerImage> =
        serde_json::from_slice(&bytes).map_err(|e| Error::malformed(DOCKER_MANIFEST, e))?;
    images
        .into_iter()
        .map(|image| {
            let config = members.read(&image.config)?;
            if let Some(expected) = digest_in_name(&image.config) {
                check_digest("image configuration", &expected, layer::digest_of(&config))?;
            }
            let names = image.repo_tags.unwrap_or_default();
            let names = names.iter().map(|name| Reference::parse(name)).collect::<Result<_>>()?;
            let layers =
                image.layers.into_iter().map(|member| LayerMember { digest: None, member }).collect();
            Ok(Found { names, config, layers, manifest_digest: None })
        })
        .collect()
}

/// `docker save` names configurations by their digest: `HEX.json` or `blobs/sha256/HEX`.
fn digest_in_name(member: &str) -> Option<String> {
    let name = member.rsplit('/').next()?;
    let digest = format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name));
    super::reference::is_digest(&digest).then_some(digest)
}

fn oci_images(members: &Members) -> Result<Vec<Found>> {
    let index = Manifest::parse(&members.read(OCI_INDEX)?)?;
    index
        .manifests
        .iter()
        .map(|descriptor| {
            let manifest = resolve(members, descriptor)?;
            let named = NAME_ANNOTATIONS.iter().find_map(|key| descriptor.annotations.get(*key));
            let names = named.map(|name| Reference::parse(name)).transpose()?;
            Ok(Found {
                names: names.into_iter().collect(),
                config: members.read_blob("image configuration", &manifest.config)?,
                layers: manifest
                    .layers
                    .into_iter()
                    .map(|layer| LayerMember {
                        member: blob_member(&layer.digest),
                        digest: Some(layer.digest),
                    })
                    .collect(),
                manifest_digest: Some(descriptor.digest.clone()),
            })
        })
        .collect()
}

fn resolve(members: &Members, descriptor: &Descriptor) -> Result<ImageManifest> {
    let mut at = descriptor.clone();
    for _ in 0..NESTING_MAX {
        match Manifest::parse(&members.read_blob("image manifest", &at)?)?.resolve()? {
            Resolved::Image(manifest) => return Ok(manifest),
            Resolved::Platform(descriptor) => at = descriptor,
        }
    }
    Err(Error::malformed("archive", "manifest lists are nested too deeply"))
}

fn blob_member(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn check_digest(what: &'static str, expected: &str, found: String) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::DigestMismatch { what, expected: expected.to_owned(), found })
}

/// The archive's members, spooled to disk: they may come in any order.
struct Members {
    files: BTreeMap<String, PathBuf>,
    /// Older `docker save` links equal layers.
    links: BTreeMap<String, String>,
}

impl Members {
    fn spool(reader: impl Read, dir: &Path) -> Result<Members> {
        let bad = |e: io::Error| Error::malformed("archive", e);
        let mut archive = Archive::new(decompress(reader).map_err(bad)?);
        let mut members = Members { files: BTreeMap::new(), links: BTreeMap::new() };
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let name = normalise(&entry.path().map_err(bad)?);
            if members.files.len() + members.links.len() >= MEMBERS_MAX {
                return Err(Error::malformed("archive", format!("more than {MEMBERS_MAX} members")));
            }
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let path = dir.join(format!("member-{}", members.files.len()));
                    let mut file = File::create(&path).map_err(Error::io("create", &path))?;
                    let length = io::copy(&mut entry, &mut file).map_err(bad)?;
                    if length != entry.size() {
                        return Err(Error::malformed("archive", format!("{name} is cut short")));
                    }
                    members.files.insert(name, path);
                }
                EntryType::Symlink | EntryType::Link => {
                    let hard = entry.header().entry_type() == EntryType::Link;
                    let link = entry.link_name().map_err(bad)?.unwrap_or_default();
                    let base = Path::new(&name).parent().filter(|_| !hard).unwrap_or(Path::new(""));
                    members.links.insert(name.clone(), normalise(&base.join(link)));
                }
                _ => {}
            }
        }
        Ok(members)
    }

    fn contains(&self, name: &str) -> bool {
        self.path(name).is_ok()
    }

    fn path(&self, name: &str) -> Result<&Path> {
        let mut name = normalise(Path::new(name));
        for _ in 0..LINKS_MAX {
            if let Some(path) = self.files.get(&name) {
                return Ok(path);
            }
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => break,
            }
        }
        Err(Error::malformed("archive", format!("{name} is missing")))
    }

    fn open(&self, name: &str) -> Result<File> {
        let path = self.path(name)?;
        File::open(path).map_err(Error::io("open", path))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name)?;
        let length = fs::metadata(path).map_err(Error::io("read", path))?.len();
        if length > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge { what: "document", max: DOCUMENT_BYTES_MAX });
        }
        fs::read(path).map_err(Error::io("read", path))
    }

    fn read_blob(&self, what: &'static str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.read(&blob_member(&descriptor.digest))?;
        check_digest(what, &descriptor.digest, layer::digest_of(&bytes))?;
        Ok(bytes)
    }

    fn verify(&self, name: &str, digest: &str) -> Result<()> {
        let mut hashing = Hashing::new(self.open(name)?);
        io::copy(&mut hashing, &mut io::sink()).map_err(|e| Error::malformed("layer", e))?;
        check_digest("layer", digest, hashing.digest())
    }
}

/// `./a/../b` is `b`; what climbs out of the archive ends at its root.
fn normalise(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}
