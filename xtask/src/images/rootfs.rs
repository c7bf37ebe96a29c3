//! The files of an image, taken from this machine: programs with the libraries they load, single files, text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// One member of an image's file system.
pub enum Member {
    /// Copied from this machine, with its permissions.
    File(PathBuf),
    Text {
        content: String,
        mode: u32,
    },
    Directory {
        mode: u32,
    },
    Symlink(PathBuf),
}

/// Members by their absolute path; a later one replaces an earlier one.
#[derive(Default)]
pub struct Rootfs {
    members: BTreeMap<PathBuf, Member>,
}

impl Rootfs {
    pub fn members(&self) -> impl Iterator<Item = (&Path, &Member)> {
        self.members.iter().map(|(path, member)| (path.as_path(), member))
    }

    pub fn text(&mut self, path: &str, content: &str, mode: u32) {
        self.members.insert(path.into(), Member::Text { content: content.to_owned(), mode });
    }

    pub fn dir(&mut self, path: &str, mode: u32) {
        self.members.insert(path.into(), Member::Directory { mode });
    }

    /// A file of this machine at the same place.
    pub fn host_file(&mut self, path: &str) -> anyhow::Result<()> {
        let real = std::fs::canonicalize(path).with_context(|| format!("cannot find {path}"))?;
        self.members.insert(path.into(), Member::File(real));
        Ok(())
    }

    /// A program of this machine and every library it loads, at the places where its loader looks.
    pub fn program(&mut self, name: &str) -> anyhow::Result<()> {
        let program = process::find(name).with_context(|| format!("{name} is not installed"))?;
        let program = program.to_str().context("a program's path is text")?;
        self.host_file(program)?;
        let list = process::output(Command::new("ldd").arg(program))?;
        for library in libraries(&list) {
            self.host_file(library)?;
        }
        Ok(())
    }

    /// The static busybox with a link for each of its commands.
    pub fn busybox(&mut self) -> anyhow::Result<()> {
        let program = process::find("busybox").context("busybox is not installed")?;
        let commands = process::output(Command::new(&program).arg("--list"))?;
        for command in commands.lines().filter(|command| *command != "busybox") {
            self.members.insert(Path::new("/bin").join(command), Member::Symlink("busybox".into()));
        }
        self.members.insert("/bin/busybox".into(), Member::File(program));
        Ok(())
    }
}

/// The files in what `ldd` prints: `NAME => PATH (ADDRESS)` for libraries, `PATH (ADDRESS)` for the loader.
fn libraries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| {
        let found = line.split_once("=>").map_or(line, |(_, found)| found);
        found.split_whitespace().next().filter(|path| path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_what_has_no_file_is_not() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f01)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f02)\n";
        let found: Vec<&str> = libraries(list).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
