//! As much of bpf(2) as programs need that decide about devices.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Others, such as systemd, may have a program at the same cgroup: all must allow.
const ALLOW_MULTI: u32 = 1 << 1;
/// Only helpers that are not called here are for programs of certain licences.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";

pub const LOAD_WORD: u8 = 0x61;
pub const MOVE: u8 = 0xb7;
pub const MOVE_REGISTER: u8 = 0xbf;
pub const AND: u8 = 0x57;
pub const RSHIFT: u8 = 0x77;
pub const JUMP_NE: u8 = 0x55;
pub const JUMP_NE_REGISTER: u8 = 0x5d;
pub const EXIT: u8 = 0x95;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Target in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    pub fn new(code: u8) -> Self {
        Instruction { code, registers: 0, offset: 0, value: 0 }
    }

    pub fn to(self, register: u8) -> Self {
        Instruction { registers: self.registers | register, ..self }
    }

    pub fn from(self, register: u8) -> Self {
        Instruction { registers: self.registers | register << 4, ..self }
    }

    pub fn offset(self, offset: i16) -> Self {
        Instruction { offset, ..self }
    }

    pub fn value(self, value: i32) -> Self {
        Instruction { value, ..self }
    }

    pub fn is_jump(&self) -> bool {
        matches!(self.code, JUMP_NE | JUMP_NE_REGISTER)
    }
}

/// The fields of `union bpf_attr` for `BPF_PROG_LOAD`, up to the last that is set.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    text: u64,
    license: u64,
}

/// Those for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
}

fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are as the command wants them, and what they point to lives as long as the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// Hands a program to the kernel, which checks it.
pub fn load_device_program(text: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instructions: text.len() as u32,
        text: text.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
    };
    let descriptor = call(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The cgroup keeps the program as long as it exists.
pub fn attach_device_program(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    call(PROG_ATTACH, &attributes).map(drop)
}
