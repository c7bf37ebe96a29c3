//! Which devices a container may use: rows for the device controller of version 1, on version 2 a program in eBPF that
//! the kernel asks at each access. The set is docker's and containerd's.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use super::bpf::{self, Instruction};
use crate::shim::spec::DeviceSpec;

/// Every node may be made, these and what the pod asks for may be used.
const ALLOWED: [Rule; 11] = [
    Rule { access: MAKE, ..Rule::of(CHARACTER) },
    Rule { access: MAKE, ..Rule::of(BLOCK) },
    Rule::character(1, 3),
    Rule::character(1, 5),
    Rule::character(1, 7),
    Rule::character(1, 8),
    Rule::character(1, 9),
    Rule::character(5, 0),
    Rule::character(5, 1),
    Rule::character(5, 2),
    Rule { major: Some(136), ..Rule::of(CHARACTER) },
];

/// As `struct bpf_cgroup_dev_ctx` tells kinds and kinds of access.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// What may be done with some devices; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    kind: i32,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    const fn of(kind: i32) -> Rule {
        Rule { kind, major: None, minor: None, access: MAKE | READ | WRITE }
    }

    const fn character(major: i32, minor: i32) -> Rule {
        Rule { major: Some(major), minor: Some(minor), ..Rule::of(CHARACTER) }
    }
}

/// A row of `devices.allow`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<i32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if self.kind == BLOCK { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MAKE, "m")];
        letters.iter().filter(|(access, _)| self.access & access != 0).try_for_each(|(_, l)| f.write_str(l))
    }
}

/// What a container may use that asks for these devices. Numbers of devices have 12 and 20 bits.
pub fn rules(devices: &[DeviceSpec]) -> Vec<Rule> {
    let asked = devices.iter().map(|device| Rule {
        major: i32::try_from(device.major).ok(),
        minor: i32::try_from(device.minor).ok(),
        ..Rule::of(if device.block { BLOCK } else { CHARACTER })
    });
    ALLOWED.into_iter().chain(asked).collect()
}

/// Has the kernel ask from now on, for all processes of this version 2 cgroup and those below it.
pub fn restrict(cgroup: &Path, rules: &[Rule]) -> io::Result<()> {
    let program = bpf::load_device_program(&program(rules))?;
    bpf::attach_device_program(&File::open(cgroup)?, &program)
}

/// Says 1 when one of the rules allows all of an access, otherwise 0. The kernel hands in a context of three words:
/// kind (lower half) and access, major, minor.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    use bpf::{AND, EXIT, JUMP_NE, JUMP_NE_REGISTER, LOAD_WORD, MOVE, MOVE_REGISTER, RSHIFT};
    const RESULT: u8 = 0;
    const CONTEXT: u8 = 1;
    const KIND: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const ALLOWED_PART: u8 = 6;
    let mut text = vec![
        Instruction::new(LOAD_WORD).to(KIND).from(CONTEXT),
        Instruction::new(MOVE_REGISTER).to(ACCESS).from(KIND),
        Instruction::new(RSHIFT).to(ACCESS).value(16),
        Instruction::new(AND).to(KIND).value(0xffff),
        Instruction::new(LOAD_WORD).to(MAJOR).from(CONTEXT).offset(4),
        Instruction::new(LOAD_WORD).to(MINOR).from(CONTEXT).offset(8),
    ];
    for rule in rules {
        let mut block = vec![
            Instruction::new(JUMP_NE).to(KIND).value(rule.kind),
            Instruction::new(MOVE_REGISTER).to(ALLOWED_PART).from(ACCESS),
            Instruction::new(AND).to(ALLOWED_PART).value(rule.access),
            Instruction::new(JUMP_NE_REGISTER).to(ALLOWED_PART).from(ACCESS),
        ];
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            block.extend(number.map(|number| Instruction::new(JUMP_NE).to(register).value(number)));
        }
        block.extend([Instruction::new(MOVE).to(RESULT).value(1), Instruction::new(EXIT)]);
        let end = block.len();
        for (at, instruction) in block.iter_mut().enumerate().filter(|(_, instruction)| instruction.is_jump())
        {
            *instruction = instruction.offset((end - at - 1) as i16);
        }
        text.extend(block);
    }
    text.extend([Instruction::new(MOVE).to(RESULT).value(0), Instruction::new(EXIT)]);
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::cgroups::Cgroups;

    #[test]
    fn rules_read_as_rows_of_version_1() {
        let disk = DeviceSpec { block: true, major: 8, minor: 16, ..device() };
        let rows: Vec<String> = rules(&[disk]).iter().map(Rule::to_string).collect();
        assert_eq!(rows[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(rows[10..], ["c 136:* rwm", "b 8:16 rwm"]);
    }

    fn device() -> DeviceSpec {
        DeviceSpec { path: PathBuf::new(), block: false, major: 0, minor: 0, mode: 0, uid: 0, gid: 0 }
    }

    /// A cgroup of version 2, which a hybrid machine has too, if without controllers.
    struct Cgroup(PathBuf);

    impl Cgroup {
        fn new() -> Self {
            let unified = match Cgroups::detect().unwrap() {
                Cgroups::V2(mount) => mount,
                Cgroups::V1(_) => PathBuf::from("/sys/fs/cgroup/unified"),
            };
            let dir = unified.join(format!("coxswain-devices-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Cgroup(dir)
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn the_kernel_asks_the_program_at_each_access() {
        let nodes = tempfile::tempdir().unwrap();
        let kernel_log = DeviceSpec { major: 1, minor: 11, ..device() };
        let check = |asked: &[DeviceSpec], name: &str, expect: bool| {
            let cgroup = Cgroup::new();
            restrict(&cgroup.0, &rules(asked)).unwrap();
            let run = |script: String| {
                let script = format!("echo $$ > {}/cgroup.procs && {script}", cgroup.0.display());
                Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
            };
            let node = nodes.path().join(format!("{name}-{}", asked.len()));
            let numbers = if name == "zero" { "1 5" } else { "1 11" };
            assert!(run(format!("mknod {} c {numbers}", node.display())), "make {name}");
            assert_eq!(run(format!("exec 3< {}", node.display())), expect, "open {name} of {asked:?}");
        };
        check(&[], "zero", true);
        check(&[], "kernel-log", false);
        check(&[kernel_log], "kernel-log", true);
    }
}
