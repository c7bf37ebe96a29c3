//! The image store: unpacked layers by content, one small JSON file per image, both placed whole or not at all.
//!
//! `layers/NAME` is the tree of one layer, `images/ID.json` what is known of one image, `tmp/` whatever is on its way.
//! Layers are shared by content; one that no image and no container uses is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::layer::{self, Unpacked};
use super::manifest::{ContainerConfig, ImageConfig};
use super::{Error, Reference, Result};
use crate::files::{random_id, write_atomically};

/// Hexadecimal digits of a layer's digest in its folder's name: 96 bits tell layers apart, and 128 such names still
/// fit into the page that overlay's options may take.
const LAYER_NAME_CHARS: usize = 24;
const DIGEST_PREFIX: &str = "sha256:";

/// The name an image was stored under, and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    pub name: Option<String>,
    pub id: String,
}

/// One image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the image's configuration, `sha256:..`.
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Bottom first.
    pub layers: Vec<Layer>,
    pub config: ContainerConfig,
    /// Not to be collected as garbage.
    #[serde(default)]
    pub pinned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Folder below `layers/`.
    pub name: String,
    /// Bytes of its uncompressed tar.
    pub size: u64,
}

impl Image {
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Layer folders, bottom first.
    pub fn layer_names(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.name.clone()).collect()
    }
}

pub struct Store {
    dir: PathBuf,
    images: Mutex<BTreeMap<String, Image>>,
}

/// Layers on their way in. Dropped without `Store::commit` it takes them away again.
pub struct Staging {
    pub dir: PathBuf,
    /// How many folders were made in it.
    folders: usize,
    layers: Vec<(PathBuf, Unpacked)>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove staged layers");
        }
    }
}

impl Staging {
    /// An empty folder for another layer.
    pub fn folder(&mut self) -> Result<PathBuf> {
        let dir = self.dir.join(format!("layer-{}", self.folders));
        self.folders += 1;
        fs::create_dir(&dir).map_err(Error::io("create folder", &dir))?;
        Ok(dir)
    }

    /// Takes a folder with an unpacked layer, and checks that it is the one expected.
    pub fn add(&mut self, dir: PathBuf, unpacked: Unpacked, expected: Option<&str>) -> Result<&Unpacked> {
        if let Some(expected) = expected.filter(|expected| **expected != unpacked.diff_id) {
            let (expected, found) = (expected.to_owned(), unpacked.diff_id);
            return Err(Error::DigestMismatch { what: "unpacked layer", expected, found });
        }
        self.layers.push((dir, unpacked));
        Ok(&self.layers[self.layers.len() - 1].1)
    }

    /// Unpacks a layer and checks that it is the one expected.
    pub fn unpack(&mut self, reader: impl std::io::Read, expected: Option<&str>) -> Result<&Unpacked> {
        let dir = self.folder()?;
        let unpacked = layer::unpack(reader, &dir)?;
        self.add(dir, unpacked, expected)
    }

    pub fn has(&self, diff_id: &str) -> bool {
        self.layers.iter().any(|(_, unpacked)| unpacked.diff_id == diff_id)
    }
}

impl Store {
    pub fn open(dir: &Path, layers_in_use: &BTreeSet<String>) -> Result<Store> {
        for name in ["images", "layers"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        }
        let tmp = dir.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(Error::io("remove", &tmp))?;
        }
        fs::create_dir(&tmp).map_err(Error::io("create folder", &tmp))?;
        let store = Store { dir: dir.to_owned(), images: Mutex::new(load(&dir.join("images"))?) };
        store.remove_unused_layers(&store.images.lock(), layers_in_use)?;
        Ok(store)
    }

    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn stage(&self) -> Result<Staging> {
        let dir = self.dir.join("tmp").join(random_id());
        fs::create_dir(&dir).map_err(Error::io("create folder", &dir))?;
        Ok(Staging { dir, folders: 0, layers: Vec::new() })
    }

    pub fn has_layer(&self, diff_id: &str) -> bool {
        self.known_layer(&self.images.lock(), diff_id).is_some()
    }

    fn known_layer(&self, images: &BTreeMap<String, Image>, diff_id: &str) -> Option<Layer> {
        let name = layer_name(diff_id);
        images.values().flat_map(|image| &image.layers).find(|layer| layer.name == name).cloned()
    }

    /// Makes a staged image visible: its layers move in, then its record is written.
    pub fn commit(
        &self,
        staging: Staging,
        config_bytes: &[u8],
        name: Option<&Reference>,
        manifest_digest: Option<&str>,
    ) -> Result<ImageRef> {
        let config = ImageConfig::parse(config_bytes)?;
        let id = layer::digest_of(config_bytes);
        let mut images = self.images.lock();
        let mut layers = Vec::with_capacity(config.rootfs.diff_ids.len());
        for diff_id in &config.rootfs.diff_ids {
            layers.push(self.place_layer(&images, &staging, diff_id)?);
        }
        let mut image = images.get(&id).cloned().unwrap_or_else(|| Image {
            id: id.clone(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            layers,
            config: config.config,
            pinned: false,
        });
        let tag = name.filter(|name| name.tag.is_some()).map(tag_name);
        let digest = name.and_then(|name| Some(format!("{}@{}", name.repository(), manifest_digest?)));
        add_once(&mut image.repo_tags, tag.clone());
        add_once(&mut image.repo_digests, digest.clone());
        self.write(&image)?;
        if let Some(tag) = &tag {
            self.move_tag(&mut images, tag, &id)?;
        }
        images.insert(id.clone(), image);
        Ok(ImageRef { name: tag.or(digest), id })
    }

    fn place_layer(
        &self,
        images: &BTreeMap<String, Image>,
        staging: &Staging,
        diff_id: &str,
    ) -> Result<Layer> {
        if let Some(known) = self.known_layer(images, diff_id) {
            return Ok(known);
        }
        let staged = staging.layers.iter().find(|(_, unpacked)| unpacked.diff_id == diff_id);
        let (dir, unpacked) = staged.ok_or_else(|| Error::NotFound(format!("layer {diff_id}")))?;
        let layer = Layer { name: layer_name(diff_id), size: unpacked.size };
        let target = self.layers_dir().join(&layer.name);
        // The same layer may appear twice in one image.
        if dir.exists() && !target.exists() {
            fs::rename(dir, &target).map_err(Error::io("place layer", &target))?;
        }
        Ok(layer)
    }

    /// A tag names one image: the one that came last.
    fn move_tag(&self, images: &mut BTreeMap<String, Image>, tag: &str, to: &str) -> Result<()> {
        for image in images.values_mut().filter(|image| image.id != to) {
            if image.repo_tags.iter().any(|known| known == tag) {
                image.repo_tags.retain(|known| known != tag);
                self.write(image)?;
            }
        }
        Ok(())
    }

    fn write(&self, image: &Image) -> Result<()> {
        let path = self.record_path(&image.id);
        let bytes = serde_json::to_vec(image).map_err(|e| Error::malformed("image record", e))?;
        write_atomically(&path, &bytes).map_err(Error::io("write", &path))
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.dir.join("images").join(format!("{}.json", id.trim_start_matches(DIGEST_PREFIX)))
    }

    pub fn list(&self) -> Vec<Image> {
        self.images.lock().values().cloned().collect()
    }

    /// Finds an image by id or name.
    pub fn get(&self, name: &str) -> Option<Image> {
        let images = self.images.lock();
        if let Some(image) = images.get(name).or_else(|| images.get(&format!("{DIGEST_PREFIX}{name}"))) {
            return Some(image.clone());
        }
        let reference = Reference::parse(name).ok()?;
        let digest = reference.digest.as_ref().map(|digest| format!("{}@{digest}", reference.repository()));
        let found = match digest {
            Some(digest) => images.values().find(|image| image.repo_digests.contains(&digest)),
            None => {
                let tag = tag_name(&reference);
                images.values().find(|image| image.repo_tags.contains(&tag))
            }
        };
        found.cloned()
    }

    pub fn set_pinned(&self, id: &str, pinned: bool) -> Result<()> {
        let mut images = self.images.lock();
        let image = images.get_mut(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        image.pinned = pinned;
        self.write(image)
    }

    /// Forgets an image with all its names; removing one that is not there succeeds. Layers in use stay.
    pub fn remove(&self, name: &str, layers_in_use: &BTreeSet<String>) -> Result<()> {
        let Some(image) = self.get(name) else { return Ok(()) };
        let mut images = self.images.lock();
        let path = self.record_path(&image.id);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        images.remove(&image.id);
        self.remove_unused_layers(&images, layers_in_use)
    }

    fn remove_unused_layers(
        &self,
        images: &BTreeMap<String, Image>,
        in_use: &BTreeSet<String>,
    ) -> Result<()> {
        let layers_dir = self.layers_dir();
        let used: BTreeSet<&str> =
            images.values().flat_map(|image| &image.layers).map(|layer| layer.name.as_str()).collect();
        for entry in fs::read_dir(&layers_dir).map_err(Error::io("read", &layers_dir))? {
            let entry = entry.map_err(Error::io("read", &layers_dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !used.contains(name.as_str()) && !in_use.contains(&name) {
                fs::remove_dir_all(entry.path()).map_err(Error::io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

fn load(dir: &Path) -> Result<BTreeMap<String, Image>> {
    let mut images = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            continue;
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let image: Image = serde_json::from_slice(&bytes).map_err(|e| Error::malformed("image record", e))?;
        images.insert(image.id.clone(), image);
    }
    Ok(images)
}

fn layer_name(diff_id: &str) -> String {
    diff_id.trim_start_matches(DIGEST_PREFIX).chars().take(LAYER_NAME_CHARS).collect()
}

fn tag_name(reference: &Reference) -> String {
    Reference { digest: None, ..reference.clone() }.to_string()
}

fn add_once(names: &mut Vec<String>, name: Option<String>) {
    if let Some(name) = name.filter(|name| !names.contains(name)) {
        names.push(name);
    }
}
