//! Unpacking a layer into an overlay folder: whiteouts become what overlayfs understands, nothing lands outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::{Error, Result};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are bookkeeping of the aufs file system.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_ATTRIBUTE: &std::ffi::CStr = c"trusted.overlay.opaque";
const XATTR_RECORD: &str = "SCHILY.xattr.";
/// A layer that inflates past this is refused.
const LAYER_BYTES_MAX: u64 = 64 << 30;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Reads through whatever compression the first bytes announce: gzip, zstd or none.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let start = io::BufRead::fill_buf(&mut reader)?;
    if start.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?));
    }
    Ok(Box::new(reader))
}

/// Hashes what is read through it.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
    pub length: u64,
}

impl<R> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Hashing { inner, hash: Sha256::new(), length: 0 }
    }

    pub fn digest(self) -> String {
        digest_text(self.hash)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.length += length as u64;
        if self.length > LAYER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "layer is too large"));
        }
        Ok(length)
    }
}

pub fn digest_of(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

pub fn digest_text(hash: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// What a layer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Bytes of the uncompressed tar.
    pub size: u64,
}

/// Unpacks a layer, compressed or not, into the existing empty folder `dir`.
pub fn unpack(reader: impl Read, dir: &Path) -> Result<Unpacked> {
    let plain = decompress(reader).map_err(Error::io("read layer for", dir))?;
    let mut hashing = Hashing::new(plain);
    let mut archive = Archive::new(&mut hashing);
    let mut layer = Layer { dir: dir.to_owned(), times: BTreeMap::new() };
    for entry in archive.entries().map_err(|e| Error::malformed("layer", e))? {
        let mut entry = entry.map_err(|e| Error::malformed("layer", e))?;
        layer.apply(&mut entry)?;
    }
    // The digest covers the padding after the archive's end too.
    io::copy(&mut hashing, &mut io::sink()).map_err(|e| Error::malformed("layer", e))?;
    layer.finish()?;
    let size = hashing.length;
    Ok(Unpacked { diff_id: hashing.digest(), size })
}

struct Layer {
    dir: PathBuf,
    /// Modification times of folders, set last: filling a folder changes its own.
    times: BTreeMap<PathBuf, i64>,
}

impl Layer {
    fn apply<R: Read>(&mut self, entry: &mut Entry<R>) -> Result<()> {
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = entry.path().map_err(|e| Error::malformed("layer", e))?.into_owned();
        let relative = safe_relative(&path)?;
        let target = self.dir.join(&relative);
        if relative.as_os_str().is_empty() {
            return self.set_metadata(entry, &target);
        }
        self.make_parents(&relative)?;
        let name = relative.file_name().map(|name| name.as_bytes().to_owned()).unwrap_or_default();
        if name == WHITEOUT_OPAQUE {
            return set_xattr(target.parent().unwrap_or(&self.dir), OPAQUE_ATTRIBUTE, b"y");
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            let hidden = target.with_file_name(std::ffi::OsStr::from_bytes(hidden));
            remove(&hidden)?;
            return make_node(&hidden, SFlag::S_IFCHR, 0, 0, 0);
        }
        if entry.header().entry_type() == EntryType::Link {
            return self.make_hard_link(entry, &target);
        }
        self.make(entry, &target)?;
        self.set_metadata(entry, &target)
    }

    /// Folders the archive implies without listing them. A parent that is a link would lead elsewhere: refused.
    fn make_parents(&self, relative: &Path) -> Result<()> {
        let mut walked = self.dir.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            walked.push(part);
            match fs::symlink_metadata(&walked) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    return Err(Error::malformed(
                        "layer",
                        format!("{} goes through a link", relative.display()),
                    ));
                }
                Err(_) => fs::create_dir(&walked).map_err(Error::io("create folder", &walked))?,
            }
        }
        Ok(())
    }

    fn make<R: Read>(&mut self, entry: &mut Entry<R>, target: &Path) -> Result<()> {
        let kind = entry.header().entry_type();
        let exists_as_dir = fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_dir());
        if !(kind == EntryType::Directory && exists_as_dir) {
            remove(target)?;
        }
        let device = |entry: &Entry<R>| -> Result<(u64, u64)> {
            let header = entry.header();
            let number = |part: io::Result<Option<u32>>| part.map(|n| u64::from(n.unwrap_or(0)));
            let bad = |e| Error::malformed("layer", e);
            Ok((number(header.device_major()).map_err(bad)?, number(header.device_minor()).map_err(bad)?))
        };
        match kind {
            EntryType::Directory if exists_as_dir => Ok(()),
            EntryType::Directory => fs::create_dir(target).map_err(Error::io("create folder", target)),
            EntryType::Symlink => {
                let link = entry.link_name().map_err(|e| Error::malformed("layer", e))?;
                let link = link.ok_or_else(|| Error::malformed("layer", "symbolic link without a target"))?;
                symlink(link, target).map_err(Error::io("create link", target))
            }
            EntryType::Char => {
                device(entry).and_then(|(a, b)| make_node(target, SFlag::S_IFCHR, a, b, 0o600))
            }
            EntryType::Block => {
                device(entry).and_then(|(a, b)| make_node(target, SFlag::S_IFBLK, a, b, 0o600))
            }
            EntryType::Fifo => make_node(target, SFlag::S_IFIFO, 0, 0, 0o600),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = File::create_new(target).map_err(Error::io("create file", target))?;
                io::copy(entry, &mut file).map_err(Error::io("write file", target)).map(drop)
            }
            kind => {
                Err(Error::malformed("layer", format!("{} is of unknown kind {kind:?}", target.display())))
            }
        }
    }

    fn make_hard_link<R: Read>(&self, entry: &Entry<R>, target: &Path) -> Result<()> {
        let link = entry.link_name().map_err(|e| Error::malformed("layer", e))?;
        let link = link.ok_or_else(|| Error::malformed("layer", "hard link without a target"))?;
        let relative = safe_relative(&link)?;
        self.make_parents(&relative)?;
        let source = self.dir.join(relative);
        remove(target)?;
        // linkat does not follow a link at the end of the source.
        fs::hard_link(&source, target).map_err(Error::io("link file", target))
    }

    fn set_metadata<R: Read>(&mut self, entry: &mut Entry<R>, target: &Path) -> Result<()> {
        let header = entry.header();
        let fields = header.as_old();
        let uid = number(&fields.uid, || header.uid())? as u32;
        let gid = number(&fields.gid, || header.gid())? as u32;
        let mode = number(&fields.mode, || header.mode())?;
        let mtime = number(&fields.mtime, || header.mtime())? as i64;
        let kind = header.entry_type();
        lchown(target, Some(uid), Some(gid)).map_err(Error::io("set owner of", target))?;
        if kind != EntryType::Symlink {
            // After the owner: changing that clears set-id bits.
            fs::set_permissions(target, fs::Permissions::from_mode(mode & 0o7777))
                .map_err(Error::io("set mode of", target))?;
        }
        for (name, value) in xattrs(entry)? {
            set_xattr(target, &name, &value)?;
        }
        if kind == EntryType::Directory {
            self.times.insert(target.to_owned(), mtime);
            return Ok(());
        }
        set_mtime(target, mtime)
    }

    fn finish(self) -> Result<()> {
        self.times.iter().filter(|(dir, _)| dir.exists()).try_for_each(|(dir, mtime)| set_mtime(dir, *mtime))
    }
}

/// What a field of a header says; an empty one says zero, as Go's archive/tar has it (`parseNumeric`).
fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(T::default());
    }
    read().map_err(|e| Error::malformed("layer", e))
}

fn xattrs<R: Read>(entry: &mut Entry<R>) -> Result<Vec<(std::ffi::CString, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions().map_err(|e| Error::malformed("layer", e))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension.map_err(|e| Error::malformed("layer", e))?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR_RECORD)) else {
            continue;
        };
        // The overlay's own attributes would let an image hide or redirect what lies below.
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            continue;
        }
        let name = std::ffi::CString::new(name).map_err(|e| Error::malformed("layer", e))?;
        found.push((name, extension.value_bytes().to_owned()));
    }
    Ok(found)
}

/// The path below the layer's root; one that climbs out of it is refused.
fn safe_relative(path: &Path) -> Result<PathBuf> {
    let mut relative = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => relative.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::malformed("layer", format!("{} leaves the layer", path.display())));
            }
        }
    }
    Ok(relative)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Error::io("replace", path))
}

fn make_node(path: &Path, kind: SFlag, major: u64, minor: u64, mode: u32) -> Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(mode), makedev(major, minor))
        .map_err(io::Error::from)
        .map_err(Error::io("create node", path))
}

fn set_mtime(path: &Path, mtime: i64) -> Result<()> {
    let time = TimeSpec::new(mtime, 0);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
        .map_err(io::Error::from)
        .map_err(Error::io("set time of", path))
}

fn set_xattr(path: &Path, name: &std::ffi::CStr, value: &[u8]) -> Result<()> {
    let c_path =
        std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|e| Error::malformed("layer", e))?;
    // SAFETY: all pointers are valid for the lengths given.
    let result =
        unsafe { libc::lsetxattr(c_path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (0, _) => Ok(()),
        // containerd ignores what the file system below cannot keep.
        (_, Some(libc::ENOTSUP)) => Ok(()),
        _ => Err(Error::io("set attribute of", path)(error)),
    }
}
