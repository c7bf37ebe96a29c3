//! Block devices that are shown as folders: one that holds nothing yet is formatted, and one that became larger is filled
//! (follows mount-utils' `SafeFormatAndMount`, with the same programs of the node).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use tokio::process::Command;
use tokio::sync::Mutex;

use super::mounts;

/// What is made where nobody says which file system is wanted.
const FS_TYPE_DEFAULT: &str = "ext4";

/// How `blkid` says that it found nothing on a device.
const NOTHING_FOUND: i32 = 2;

/// Two pods may want the same new device.
static FORMATTING: Mutex<()> = Mutex::const_new(());

pub fn is_block(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

/// Shows the device's files in `dir`, where they stay until the pod's volumes go.
pub async fn mount_at(
    device: &Path,
    fs_type: Option<&str>,
    options: &[String],
    read_only: bool,
    dir: &Path,
) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    if mounts::is_mounted(dir) {
        return Ok(());
    }
    let fs_type = fs_type.filter(|name| !name.is_empty());
    let _alone = FORMATTING.lock().await;
    let found = format_of(device).await?;
    if found.is_none() {
        if read_only {
            return Err(format!(
                "cannot mount unformatted disk {} as it is used in read-only mode",
                device.display()
            ));
        }
        format(device, fs_type.unwrap_or(FS_TYPE_DEFAULT)).await?;
    }
    let fs_type = fs_type.or(found.as_deref()).unwrap_or(FS_TYPE_DEFAULT);
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    all.push(if read_only { "ro" } else { "defaults" });
    let all = all.join(",");
    let arguments: [&OsStr; 6] =
        ["-t".as_ref(), fs_type.as_ref(), "-o".as_ref(), all.as_ref(), device.as_ref(), dir.as_ref()];
    run("mount", &arguments).await
}

/// Lets the file system shown in `dir` take the whole device (follows mount-utils' `ResizeFs`).
pub async fn grow(device: &Path, dir: &Path) -> Result<(), String> {
    let Some(fs_type) = format_of(device).await? else { return Ok(()) };
    match fs_type.as_str() {
        "ext3" | "ext4" => run("resize2fs", &[device.as_ref()]).await,
        "xfs" => run("xfs_growfs", &["-d".as_ref(), dir.as_ref()]).await,
        "btrfs" => {
            let arguments: [&OsStr; 4] =
                ["filesystem".as_ref(), "resize".as_ref(), "max".as_ref(), dir.as_ref()];
            run("btrfs", &arguments).await
        }
        _ => Err(format!(
            "resize of format {fs_type} is not supported for device {} mounted at {}",
            device.display(),
            dir.display()
        )),
    }
}

/// The file system on the device, if there is anything.
async fn format_of(device: &Path) -> Result<Option<String>, String> {
    let mut command = Command::new("blkid");
    command.args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"]).arg(device);
    let output = command.output().await.map_err(|e| format!("blkid: {e}"))?;
    if output.status.code() == Some(NOTHING_FOUND) {
        return Ok(None);
    }
    if !output.status.success() {
        return Err(format!("blkid: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    read_format(&String::from_utf8_lossy(&output.stdout), device)
}

/// Reads what `blkid` exports.
fn read_format(text: &str, device: &Path) -> Result<Option<String>, String> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    match (field("TYPE="), field("PTTYPE=")) {
        (Some(fs_type), _) => Ok(Some(fs_type.to_owned())),
        (None, Some(_)) => Err(format!("device {} holds a table of partitions", device.display())),
        (None, None) => Ok(None),
    }
}

async fn format(device: &Path, fs_type: &str) -> Result<(), String> {
    let options = format_options(fs_type).iter().map(OsStr::new);
    let arguments: Vec<&OsStr> = options.chain([device.as_os_str()]).collect();
    run(&format!("mkfs.{fs_type}"), &arguments).await
}

/// Nothing is kept back for root, and no question is asked.
fn format_options(fs_type: &str) -> &'static [&'static str] {
    match fs_type {
        "ext3" | "ext4" => &["-F", "-m0"],
        "xfs" => &["-f"],
        _ => &[],
    }
}

async fn run(program: &str, arguments: &[&OsStr]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().await.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn what_is_on_a_device_is_told_from_a_table_of_partitions() {
        let read = |text: &str| read_format(text, Path::new("/dev/x"));
        assert_eq!(read("DEVNAME=/dev/x\nTYPE=xfs\n"), Ok(Some("xfs".to_owned())));
        assert_eq!(read("DEVNAME=/dev/x\n"), Ok(None));
        assert_eq!(read("PTTYPE=gpt\n"), Err("device /dev/x holds a table of partitions".to_owned()));
    }

    #[tokio::test]
    async fn what_is_no_device_is_not_formatted() {
        let folder = tempfile::tempdir().expect("a folder");
        let absent = folder.path().join("absent");
        assert!(!is_block(folder.path()) && !is_block(&absent) && !is_block(Path::new("/dev/null")));
        let refused = mount_at(&absent, None, &[], false, &folder.path().join("at")).await;
        assert!(refused.is_err(), "{refused:?}");
    }

    /// A file shown as a device; it goes at the end.
    struct Loop {
        file: fs::File,
        device: PathBuf,
    }

    impl Loop {
        fn new(path: &Path, bytes: u64) -> Self {
            let file = fs::File::create(path).expect("makes");
            file.set_len(bytes).expect("sizes");
            let told = losetup(&["--find".as_ref(), "--show".as_ref(), path.as_ref()]);
            Loop { file, device: told.trim().into() }
        }

        fn resize(&self, bytes: u64) {
            self.file.set_len(bytes).expect("sizes");
            losetup(&["--set-capacity".as_ref(), self.device.as_ref()]);
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            losetup(&["--detach".as_ref(), self.device.as_ref()]);
        }
    }

    fn losetup(arguments: &[&OsStr]) -> String {
        let output = std::process::Command::new("losetup").args(arguments).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Nothing has mounted it yet: only a node with `CAP_SYS_RESOURCE` grows what is in use.
    #[tokio::test]
    async fn a_file_system_takes_the_whole_of_a_device_that_grew() {
        const MIB: u64 = 1 << 20;
        let folder = tempfile::tempdir().expect("a folder");
        let grown = Loop::new(&folder.path().join("disk"), 16 * MIB);
        let dir = folder.path().join("at");
        grow(&grown.device, &dir).await.expect("nothing is there to grow");
        format(&grown.device, FS_TYPE_DEFAULT).await.expect("formats");
        grown.resize(48 * MIB);
        grow(&grown.device, &dir).await.expect("grows");
        mount_at(&grown.device, None, &[], false, &dir).await.expect("mounts");
        let found = nix::sys::statvfs::statvfs(&dir).expect("is mounted");
        let bytes = found.blocks() * found.fragment_size();
        mounts::detach_below(folder.path()).expect("unmounts");
        assert!(bytes > 32 * MIB, "{bytes}");
    }
}
