//! hostPath: a place of the node itself, checked against the type that is asked for.

use std::fs::{self, FileType};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use api::view::core::HostPathVolumeSource;

pub fn check(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = Path::new(&source.path);
    let kind = source.kind.as_deref().unwrap_or_default();
    let io = |e: std::io::Error| format!("hostPath {:?}: {e}", source.path);
    match kind {
        // Unchecked; like upstream's runtimes, a missing directory is made.
        "" if !path.exists() => fs::create_dir_all(path).map_err(io)?,
        "DirectoryOrCreate" if !path.exists() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io)?;
        }
        "FileOrCreate" if !path.exists() => drop(fs::File::create(path).map_err(io)?),
        _ => {}
    }
    let found = fs::metadata(path).map_err(|_| wrong(source, kind))?.file_type();
    if is(found, kind) { Ok(path.to_owned()) } else { Err(wrong(source, kind)) }
}

fn wrong(source: &HostPathVolumeSource, kind: &str) -> String {
    let what = match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        _ => "file",
    };
    format!("hostPath type check failed: {} is not a {what}", source.path)
}

fn is(found: FileType, kind: &str) -> bool {
    match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_checked() {
        let check = |path: &str, kind: &str| {
            check(&HostPathVolumeSource { path: path.into(), kind: Some(kind.into()) })
        };
        assert!(check("/dev/null", "CharDevice").is_ok());
        assert!(check("/etc", "Directory").is_ok());
        assert_eq!(
            check("/etc", "File").expect_err("a directory"),
            "hostPath type check failed: /etc is not a file"
        );
        assert!(check("/etc/absent-here", "Directory").is_err());
    }
}
