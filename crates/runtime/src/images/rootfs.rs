//! Images made on the spot from local files, such as the demo image that holds `cox` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::manifest::{ContainerConfig, ImageConfig, RootfsConfig};
use super::{Error, ImageRef, Reference, Result, Store};

const PT_INTERP: u32 = 3;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Where a file of a made image comes from.
pub enum Source {
    File(PathBuf),
    Bytes { content: Vec<u8>, mode: u32 },
    Directory { mode: u32 },
    Link(PathBuf),
}

/// Stores an image of one layer with these files (paths inside the image). Equal files give an equal image.
pub fn import_rootfs(
    store: &Store,
    name: &str,
    files: impl IntoIterator<Item = (PathBuf, Source)>,
    config: ContainerConfig,
) -> Result<ImageRef> {
    let name = Reference::parse(name)?;
    let mut staging = store.stage()?;
    let path = staging.dir.join("layer.tar");
    write_layer(&path, files.into_iter().collect()).map_err(Error::io("write layer", &path))?;
    let layer = File::open(&path).map_err(Error::io("open", &path))?;
    let diff_id = staging.unpack(layer, None)?.diff_id.clone();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = ImageConfig {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        config,
        rootfs: RootfsConfig { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
    };
    let config = serde_json::to_vec(&config).map_err(|e| Error::malformed("image configuration", e))?;
    store.commit(staging, &config, Some(&name), None)
}

fn write_layer(path: &Path, files: BTreeMap<PathBuf, Source>) -> io::Result<()> {
    let mut tar = Builder::new(File::create(path)?);
    let mut made = BTreeSet::new();
    for (target, source) in files {
        let target = target.strip_prefix("/").unwrap_or(&target).to_owned();
        let parents: Vec<&Path> =
            target.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        for dir in parents.into_iter().rev() {
            if made.insert(dir.to_owned()) {
                append(&mut tar, dir, EntryType::Directory, 0o755, &[])?;
            }
        }
        match source {
            Source::File(from) => {
                let mut file = File::open(from)?;
                let mut header = header(EntryType::Regular, 0o755, file.metadata()?.len());
                tar.append_data(&mut header, &target, &mut file)?;
            }
            Source::Bytes { content, mode } => append(&mut tar, &target, EntryType::Regular, mode, &content)?,
            Source::Directory { mode } => {
                made.insert(target.clone());
                append(&mut tar, &target, EntryType::Directory, mode, &[])?;
            }
            Source::Link(to) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, &target, to)?;
            }
        }
    }
    tar.finish()
}

fn append<W: io::Write>(
    tar: &mut Builder<W>,
    path: &Path,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    tar.append_data(&mut header(kind, mode, content.len() as u64), path, content)
}

/// Owned by root, dated 1970: the digest depends on the content alone.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The running program as `target` and whatever it needs to be loaded: its interpreter and shared libraries, at the
/// paths the interpreter looks for them.
pub fn program_files(target: &Path) -> Result<Vec<(PathBuf, Source)>> {
    let program = Path::new("/proc/self/exe");
    let mut files = vec![(target.to_owned(), Source::File(program.to_owned()))];
    if let Some(interpreter) = interpreter(program).map_err(Error::io("read", program))? {
        files.push((interpreter.clone(), Source::File(interpreter)));
    }
    let maps =
        fs::read_to_string("/proc/self/maps").map_err(Error::io("read", Path::new("/proc/self/maps")))?;
    let libraries: BTreeSet<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    for library in libraries {
        for name in names_of(&library).map_err(Error::io("look up", &library))? {
            files.push((name, Source::File(library.clone())));
        }
    }
    Ok(files)
}

/// A library and the links beside it that lead to it: programs ask for the link.
fn names_of(library: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = vec![library.to_owned()];
    for entry in library.parent().into_iter().flat_map(fs::read_dir).flatten() {
        let entry = entry?;
        if entry.file_type()?.is_symlink() && fs::canonicalize(entry.path()).is_ok_and(|path| path == library)
        {
            names.push(entry.path());
        }
    }
    Ok(names)
}

/// The program loader that a 64 bit ELF file names.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    let mut bytes = Vec::new();
    const HEADERS_BYTES: u64 = 64 << 10;
    File::open(program)?.take(HEADERS_BYTES).read_to_end(&mut bytes)?;
    Ok(elf_interpreter(&bytes))
}

fn elf_interpreter(bytes: &[u8]) -> Option<PathBuf> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        field.iter().rev().try_fold(0usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))
    };
    if !bytes.starts_with(ELF_MAGIC) {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? == PT_INTERP as usize {
            let (offset, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
            let name = bytes.get(offset..offset.checked_add(length)?)?;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            return Some(PathBuf::from(std::str::from_utf8(name).ok()?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_program_brings_its_loader_and_libc() {
        let files = program_files(Path::new("/cox")).unwrap();
        let has = |part: &str| files.iter().any(|(path, _)| path.to_string_lossy().contains(part));
        assert!(has("/cox") && has("ld-linux") && has("libc.so"));
    }

    proptest! {
        #[test]
        fn reading_a_damaged_program_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let magic = ELF_MAGIC.len().min(bytes.len());
            bytes[..magic].copy_from_slice(&ELF_MAGIC[..magic]);
            elf_interpreter(&bytes);
        }
    }
}
