//! A container's view of the file system, made inside its own mount namespace: overlay, mounts, device nodes, pivot,
//! masked and read-only paths. Nothing is mounted in the node's namespace, so nothing can be left behind there.
//!
//! Targets inside the root are resolved by the kernel with `RESOLVE_IN_ROOT`: no link in an image leads outside.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};
use nix::unistd::{Gid, Uid, chdir, fchownat, pivot_root};

use super::spec::{ContainerSpec, DeviceSpec, ImageMount, MountKind, MountSpec, Propagation, RootfsSpec};
use super::sys;
use super::user_namespace::Users;

type Result<T> = std::result::Result<T, String>;

/// Links followed from one mount target (the kernel's own limit is 40).
const LINKS_MAX: usize = 8;
/// The links every container finds in `/dev`.
const DEV_LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "dev/ptmx"),
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// The group that terminals belong to.
const TERMINAL_GROUP: u32 = 5;

/// Moves this process into a new mount namespace whose root is the container's. What is made there belongs to the root
/// of `users`, where the pod has users of its own.
pub fn enter(spec: &ContainerSpec, users: Option<&Users>) -> Result<()> {
    // Bind sources are opened before the namespace is made a slave of the node's: a bidirectional mount must stay in
    // its peer group.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare mount namespace: {e}"))?;
    let sources = open_sources(&spec.mounts, users)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|e| format!("make / a slave: {e}"))?;
    let mapped_layers = users.map(|users| map_layers(&spec.rootfs, users)).transpose()?;
    mount_overlay(&spec.rootfs, mapped_layers.as_deref())?;
    let root =
        open(&spec.rootfs.target, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| format!("open root: {e}"))?;
    let root = Root { fd: root, path: spec.rootfs.target.clone(), users, mapped_layers };
    for (entry, source) in spec.mounts.iter().zip(sources) {
        root.mount(entry, source)
            .map_err(|e| format!("error mounting {} to rootfs: {e}", entry.target.display()))?;
    }
    make_devices(&root, &spec.devices)?;
    pivot(&root.path)?;
    mask(spec)?;
    if spec.rootfs.readonly {
        remount_readonly(Path::new("/")).map_err(|e| format!("make root read-only: {e}"))?;
    }
    Ok(())
}

/// Makes `cwd` if it is missing and goes there. Called before privileges are dropped.
pub fn enter_working_directory(cwd: &str) -> Result<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !Path::new(cwd).exists() {
        fs::create_dir_all(cwd).map_err(|e| format!("mkdir {cwd}: {e}"))?;
    }
    chdir(cwd).map_err(|e| format!("chdir to cwd ({cwd:?}) set in config.json failed: {e}"))
}

fn open_sources(mounts: &[MountSpec], users: Option<&Users>) -> Result<Vec<Option<OwnedFd>>> {
    mounts
        .iter()
        .map(|entry| match &entry.kind {
            MountKind::Bind { source, id_mapped, .. } => {
                let users = users.filter(|_| *id_mapped);
                open_source(source, users).map(Some)
            }
            _ => Ok(None),
        })
        .collect()
}

fn open_source(source: &Path, users: Option<&Users>) -> Result<OwnedFd> {
    let tree =
        sys::open_tree(source, true).map_err(|e| format!("open mount source {}: {e}", source.display()))?;
    if let Some(users) = users {
        map_ids(&tree, source, users)?;
    }
    Ok(tree)
}

fn map_ids(tree: &OwnedFd, source: &Path, users: &Users) -> Result<()> {
    sys::map_ids(tree.as_fd(), users.namespace().as_fd()).map_err(|e| {
        format!(
            "failed to set MOUNT_ATTR_IDMAP on {}: {e} (maybe the filesystem used doesn't support idmap mounts on this kernel?)",
            source.display()
        )
    })
}

/// Mounts the folder of all layers once more, with its files shown as the pod's users'.
fn map_layers(rootfs: &RootfsSpec, users: &Users) -> Result<PathBuf> {
    let place = rootfs.target.with_file_name("layers");
    fs::create_dir_all(&place).map_err(|e| format!("mkdir {}: {e}", place.display()))?;
    let tree = open_source(&rootfs.layers_dir, Some(users))?;
    let target = open(&place, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| format!("open {}: {e}", place.display()))?;
    sys::move_mount(tree.as_fd(), target.as_fd()).map_err(|e| format!("mount layers: {e}"))?;
    Ok(place)
}

fn mount_overlay(rootfs: &RootfsSpec, mapped_layers: Option<&Path>) -> Result<()> {
    // Relative layer names keep the option string within the page the kernel grants it.
    let layers_dir = mapped_layers.unwrap_or(&rootfs.layers_dir);
    chdir(layers_dir).map_err(|e| format!("enter {}: {e}", layers_dir.display()))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.lower.join(":"),
        rootfs.upper.display(),
        rootfs.work.display()
    );
    mount(Some("overlay"), &rootfs.target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|e| format!("mount overlay: {e}"))?;
    let none: Option<&str> = None;
    mount(none, &rootfs.target, none, MsFlags::MS_PRIVATE, none)
        .map_err(|e| format!("make root private: {e}"))
}

/// A detached mount of what an image volume shows, put together from the layers in `layers_dir`.
fn image_tree(image: &ImageMount, layers_dir: &Path) -> Result<OwnedFd> {
    let root = match image.lower.as_slice() {
        // An overlay that cannot be written to wants two layers.
        [layer] => layers_dir.join(layer),
        layers => {
            put_together(&image.place, layers_dir, layers)?;
            image.place.clone()
        }
    };
    let root = open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| format!("open image: {e}"))?;
    let sub_path = Path::new("/").join(&image.sub_path);
    let shown = sys::open_in_root(&root, &sub_path, OFlag::O_PATH)
        .map_err(|e| format!("open {} of the image: {e}", image.sub_path.display()))?;
    let shown = PathBuf::from(format!("/proc/self/fd/{}", shown.as_raw_fd()));
    sys::open_tree(&shown, false).map_err(|e| format!("open mount of the image: {e}"))
}

fn put_together(place: &Path, layers_dir: &Path, layers: &[String]) -> Result<()> {
    fs::create_dir_all(place).map_err(|e| format!("mkdir {}: {e}", place.display()))?;
    chdir(layers_dir).map_err(|e| format!("enter {}: {e}", layers_dir.display()))?;
    let options = format!("lowerdir={}", layers.join(":"));
    mount(Some("overlay"), place, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
        .map_err(|e| format!("mount overlay of the image: {e}"))
}

struct Root<'a> {
    fd: OwnedFd,
    path: PathBuf,
    users: Option<&'a Users>,
    /// Where the images' layers are as the users see them.
    mapped_layers: Option<PathBuf>,
}

impl Root<'_> {
    /// Who the container's root is on the node, as user and as group.
    fn owner(&self) -> u32 {
        self.users.map_or(0, Users::root)
    }

    fn mount(&self, entry: &MountSpec, source: Option<OwnedFd>) -> Result<()> {
        match &entry.kind {
            MountKind::Bind { propagation, recursive_readonly, .. } => {
                let tree = source.ok_or("bind mount without a source")?;
                self.bind(entry, &tree, *propagation, *recursive_readonly)
            }
            MountKind::Image(image) => {
                let layers_dir = self.mapped_layers.as_deref().unwrap_or(&image.layers_dir);
                self.bind(entry, &image_tree(image, layers_dir)?, Propagation::Private, true)
            }
            MountKind::Cgroup => self.mount_cgroups(&entry.target, entry.readonly),
            kind => {
                let (kind, flags, options) = filesystem(kind, self.owner());
                self.mount_new(&entry.target, kind, flags, &options, entry.readonly)
            }
        }
    }

    fn bind(
        &self,
        entry: &MountSpec,
        tree: &OwnedFd,
        propagation: Propagation,
        all_readonly: bool,
    ) -> Result<()> {
        let is_dir = fs::metadata(format!("/proc/self/fd/{}", tree.as_raw_fd()))
            .map_err(|e| format!("stat source: {e}"))?
            .is_dir();
        let target = self.open_or_create(&entry.target, is_dir)?;
        let propagation = match propagation {
            Propagation::Private => MsFlags::MS_PRIVATE,
            Propagation::HostToContainer => MsFlags::MS_SLAVE,
            Propagation::Bidirectional => MsFlags::MS_SHARED,
        };
        sys::mount_setattr(tree.as_fd(), 0, propagation.bits(), true)
            .map_err(|e| format!("propagation: {e}"))?;
        if entry.readonly {
            sys::mount_setattr(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, all_readonly)
                .map_err(|e| format!("make read-only: {e}"))?;
        }
        sys::move_mount(tree.as_fd(), target.as_fd()).map_err(|e| format!("move mount: {e}"))
    }

    fn mount_new(
        &self,
        target: &Path,
        kind: &str,
        flags: MsFlags,
        options: &str,
        readonly: bool,
    ) -> Result<()> {
        let place = self.open_or_create(target, true)?;
        let place = format!("/proc/self/fd/{}", place.as_raw_fd());
        let flags = if readonly { flags | MsFlags::MS_RDONLY } else { flags };
        let options = (!options.is_empty()).then_some(options);
        mount(Some(kind), place.as_str(), Some(kind), flags, options)
            .map_err(|e| format!("mount {kind}: {e}"))
    }

    /// Each hierarchy of the node as this container's cgroup namespace shows it.
    fn mount_cgroups(&self, target: &Path, readonly: bool) -> Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
        let hierarchies = v1_hierarchies().map_err(|e| format!("read cgroup hierarchies: {e}"))?;
        if hierarchies.is_empty() {
            return self.mount_new(target, "cgroup2", flags, "", readonly);
        }
        self.mount_new(target, "tmpfs", flags, &owned("mode=755", self.owner()), false)?;
        for (name, options) in &hierarchies {
            self.mount_new(&target.join(name), "cgroup", flags, options, readonly)?;
        }
        if readonly {
            let place = self.open_or_create(target, true)?;
            sys::mount_setattr(place.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, false)
                .map_err(|e| format!("make read-only: {e}"))?;
        }
        Ok(())
    }

    /// An `O_PATH` descriptor of a path inside the root, made with its parents if missing. Where a link leads to
    /// nothing (an image's `/etc/resolv.conf` often does), what it leads to is made.
    fn open_or_create(&self, target: &Path, is_dir: bool) -> Result<OwnedFd> {
        let mut target = target.to_owned();
        for _ in 0..LINKS_MAX {
            match self.resolve(&target) {
                Ok(fd) => return Ok(fd),
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(format!("resolve {}: {e}", target.display())),
            }
            let dir = target.parent().ok_or("mount target has no parent")?.to_owned();
            let name = target.file_name().ok_or("mount target has no name")?.to_owned();
            let parent = self.create_dirs(&dir)?;
            match readlinkat(&parent, name.as_os_str()) {
                Ok(link) => target = dir.join(link),
                Err(_) => {
                    self.create(&parent, &name, is_dir)
                        .map_err(|e| format!("create {}: {e}", target.display()))?;
                }
            }
        }
        Err(format!("too many links at {}", target.display()))
    }

    fn create_dirs(&self, dir: &Path) -> Result<OwnedFd> {
        let mut walked = PathBuf::from("/");
        for part in dir.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    // Within the root: the kernel goes no further up than there.
                    walked.push("..");
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            let parent = self.resolve(&walked).map_err(|e| format!("resolve {}: {e}", walked.display()))?;
            walked.push(name);
            match self.resolve(&walked) {
                Ok(_) => {}
                Err(Errno::ENOENT) => self
                    .create(&parent, name, true)
                    .map_err(|e| format!("mkdir {}: {e}", walked.display()))?,
                Err(e) => return Err(format!("resolve {}: {e}", walked.display())),
            }
        }
        self.resolve(dir).map_err(|e| format!("resolve {}: {e}", dir.display()))
    }

    fn create(&self, parent: &OwnedFd, name: &OsStr, is_dir: bool) -> nix::Result<()> {
        if is_dir {
            mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
        } else {
            let flags =
                OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            openat(parent, name, flags, Mode::from_bits_truncate(0o644))?;
        }
        if self.users.is_none() {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.owner()), Gid::from_raw(self.owner()));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        sys::open_in_root(&self.fd, path, OFlag::O_PATH)
    }
}

/// Options of a tmpfs that belongs to this user and group.
fn owned(options: &str, owner: u32) -> String {
    format!("{options},uid={owner},gid={owner}")
}

fn filesystem(kind: &MountKind, owner: u32) -> (&'static str, MsFlags, String) {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    match kind {
        MountKind::Proc => ("proc", plain, String::new()),
        MountKind::Sysfs => ("sysfs", plain, String::new()),
        MountKind::Mqueue => ("mqueue", plain, String::new()),
        MountKind::Devpts => (
            "devpts",
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            format!("newinstance,ptmxmode=0666,mode=0620,gid={}", owner.saturating_add(TERMINAL_GROUP)),
        ),
        MountKind::Tmpfs { options } => {
            ("tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, owned(options, owner))
        }
        MountKind::Bind { .. } | MountKind::Image(_) | MountKind::Cgroup => {
            unreachable!("handled by their own functions")
        }
    }
}

/// Folder name and mount options of every cgroup v1 hierarchy the node has mounted.
fn v1_hierarchies() -> io::Result<Vec<(String, String)>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            if after.next()? != "cgroup" {
                return None;
            }
            let options = after.nth(1)?;
            let options: Vec<&str> =
                options.split(',').filter(|o| !["rw", "ro", "xattr", "clone_children"].contains(o)).collect();
            let options: Vec<&str> =
                options.into_iter().filter(|o| !o.starts_with("release_agent=")).collect();
            let name = Path::new(before.split(' ').nth(4)?).file_name()?.to_str()?.to_owned();
            let options = options.join(",");
            // A named hierarchy has no controller of its own to choose it by.
            let options = if options.starts_with("name=") { format!("none,{options}") } else { options };
            Some((name, options))
        })
        .collect())
}

fn make_devices(root: &Root, devices: &[DeviceSpec]) -> Result<()> {
    // The kernel resolves every name: /dev is the tmpfs we have just mounted.
    for (to, at) in DEV_LINKS {
        match symlink(to, root.path.join(at)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(format!("link {at}: {e}")),
            _ => {}
        }
    }
    for device in devices {
        make_device(root, device).map_err(|e| format!("make device {}: {e}", device.path.display()))?;
    }
    Ok(())
}

fn make_device(root: &Root, device: &DeviceSpec) -> Result<()> {
    let parent = device.path.parent().ok_or("device has no parent")?;
    let name = device.path.file_name().ok_or("device has no name")?;
    let parent = root.create_dirs(parent)?;
    let kind = if device.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
    let mode = Mode::from_bits_truncate(device.mode & 0o7777);
    match mknod(&path, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(()),
        Err(e) => return Err(e.to_string()),
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(device.mode & 0o7777))
        .map_err(|e| e.to_string())?;
    chown(&path, Some(device.uid), Some(device.gid)).map_err(|e| e.to_string())
}

/// Swaps the root; the old one is stacked beneath and let go.
fn pivot(root: &Path) -> Result<()> {
    chdir(root).map_err(|e| format!("enter root: {e}"))?;
    pivot_root(".", ".").map_err(|e| format!("pivot_root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("let go of the old root: {e}"))?;
    chdir("/").map_err(|e| format!("enter /: {e}"))
}

fn mask(spec: &ContainerSpec) -> Result<()> {
    let none: Option<&str> = None;
    for path in &spec.readonly_paths {
        match mount(Some(path.as_str()), path.as_str(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none) {
            Ok(()) => remount_readonly(Path::new(path)).map_err(|e| format!("make {path} read-only: {e}"))?,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => return Err(format!("bind {path}: {e}")),
        }
    }
    for path in &spec.masked_paths {
        let masked = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                mount(Some("tmpfs"), path.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, Some("nr_inodes=1"))
            }
            Ok(_) => mount(Some("/dev/null"), path.as_str(), none, MsFlags::MS_BIND, none),
            Err(_) => continue,
        };
        masked.map_err(|e| format!("mask {path}: {e}"))?;
    }
    Ok(())
}

fn remount_readonly(path: &Path) -> nix::Result<()> {
    // Flags that a mount already has may be locked; they must be given again.
    let have = nix::sys::statvfs::statvfs(path)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (fs_flag, mount_flag) in [
        (nix::sys::statvfs::FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (nix::sys::statvfs::FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (nix::sys::statvfs::FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if have.contains(fs_flag) {
            flags |= mount_flag;
        }
    }
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)
}
