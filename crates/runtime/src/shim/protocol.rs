//! The shim's protocol: versioned, length-prefixed JSON frames on a unix socket, descriptors passed beside the header.
//!
//! A frame is `version: u16, descriptors: u16, length: u32` (big endian) and `length` bytes of JSON. The agent sends
//! requests; the shim answers each with one reply. Two requests keep their connection: `Exec` gets a second reply when
//! its process ends (closing the connection before kills the process), `Subscribe` gets an `Exited` reply per container.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::spec::{ContainerSpec, ExitRecord, ProcessSpec};

/// Raised with every change of meaning; a shim outlives the agent that started it.
pub const VERSION: u16 = 1;
/// A container specification carries its whole environment, which the kernel limits to 2 MiB.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// stdin, stdout, stderr, console.
pub const DESCRIPTORS_MAX: usize = 4;
pub const HEADER_BYTES: usize = 8;
/// The socket's name in the sandbox's folder.
pub const SOCKET_NAME: &str = "shim.sock";
/// The sandbox specification's name in the sandbox's folder.
pub const SPEC_NAME: &str = "sandbox.json";

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Create and start a container.
    Start(Box<ContainerSpec>),
    /// Run a process in a container. Descriptors: stdin, stdout, stderr, or with a tty the socket that takes its master.
    Exec {
        container: String,
        process: Box<ProcessSpec>,
    },
    /// Stream a running container's output. Descriptors in the order stdin, stdout, stderr for those that are true.
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Signal a container's init, or all of its processes' ancestor.
    Signal {
        container: String,
        signal: i32,
    },
    Resize {
        container: String,
        width: u16,
        height: u16,
    },
    ReopenLog {
        container: String,
    },
    /// Drop what is known of an exited container.
    Forget {
        container: String,
    },
    State,
    Subscribe,
    /// Kill all containers and end.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Failed(String),
    Started { pid: i32, started_at: i64 },
    ExecExited { code: i32 },
    State { pid: i32, containers: Vec<ContainerState> },
    Exited { container: String, exit: ExitRecord },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub pid: i32,
    pub started_at: i64,
    pub exit: Option<ExitRecord>,
}

/// A header announces a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub descriptors: usize,
    pub length: usize,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        bytes[2..4].copy_from_slice(&(self.descriptors as u16).to_be_bytes());
        bytes[4..].copy_from_slice(&(self.length as u32).to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> io::Result<Header> {
        let version = u16::from_be_bytes([bytes[0], bytes[1]]);
        if version != VERSION {
            return Err(invalid(format!("shim protocol version {version}, expected {VERSION}")));
        }
        let descriptors = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if descriptors > DESCRIPTORS_MAX || length > FRAME_BYTES_MAX {
            return Err(invalid(format!(
                "frame of {length} bytes and {descriptors} descriptors is too large"
            )));
        }
        Ok(Header { descriptors, length })
    }
}

/// A frame of one message, header included.
pub fn encode<T: Serialize>(message: &T, descriptors: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("frame of {length} bytes is too large")));
    }
    frame[..HEADER_BYTES].copy_from_slice(&Header { descriptors, length }.encode());
    Ok(frame)
}

/// Sends the start of `bytes` together with the descriptors; returns how many bytes went out.
pub fn send_with_descriptors(socket: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control: &[ControlMessage] = if descriptors.is_empty() { &[] } else { &rights };
    Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives up to `buffer.len()` bytes and the descriptors that came beside them.
pub fn receive_with_descriptors(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// Sends one descriptor over a socket made for it (a console's master).
pub fn send_descriptor(socket: &impl AsRawFd, descriptor: &impl AsRawFd) -> io::Result<()> {
    send_with_descriptors(socket.as_raw_fd(), &[0], &[descriptor.as_raw_fd()]).map(drop)
}

/// Takes the descriptor that `send_descriptor` sent; blocks until it is there.
pub fn receive_descriptor(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    let (_, mut descriptors) = receive_with_descriptors(socket.as_raw_fd(), &mut [0])?;
    descriptors.pop().ok_or_else(|| invalid("no descriptor arrived".to_owned()))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_survives_its_encoding() {
        let header = Header { descriptors: 3, length: 70_000 };
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }

    #[test]
    fn a_header_past_the_limits_is_refused() {
        let at = Header { descriptors: DESCRIPTORS_MAX, length: FRAME_BYTES_MAX };
        assert!(Header::decode(&at.encode()).is_ok());
        let past = Header { descriptors: 0, length: FRAME_BYTES_MAX + 1 };
        assert!(Header::decode(&past.encode()).is_err());
        let past = Header { descriptors: DESCRIPTORS_MAX + 1, length: 0 };
        assert!(Header::decode(&past.encode()).is_err());
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = Header { descriptors: 0, length: 0 }.encode();
        bytes[1] += 1;
        assert!(Header::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn a_header_is_read_within_the_limits_or_refused(bytes in any::<[u8; HEADER_BYTES]>()) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert!(header.length <= FRAME_BYTES_MAX && header.descriptors <= DESCRIPTORS_MAX);
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
