//! A netlink socket: requests with acknowledgement, dumps, batches and multicast groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};

use super::{Attributes, Message, align, text};

const HEADER_LEN: usize = 16;

/// Room for the largest datagram the kernel sends in a dump (it uses 32 KiB pages).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A batch must fit the send buffer whole; hundreds of thousands of map elements fit in this.
const SEND_BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// Every failed message of a batch answers; room for them and for bursts of notifications.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A dump is asked for again this often when the kernel says that it changed meanwhile.
const DUMP_ATTEMPTS_MAX: usize = 10;

/// `NLMSGERR_ATTR_MSG`: the kernel's own words about an error.
const ERROR_MESSAGE: u16 = 1;

/// `NLM_F_ACK_TLVS` and `NLM_F_CAPPED`: what follows the error code.
const ACK_TLVS: u16 = 0x200;
const CAPPED: u16 = 0x100;

/// What a netlink call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("send to the kernel: {0}")]
    Send(#[source] Errno),
    #[error("receive from the kernel: {0}")]
    Receive(#[source] Errno),
    /// The kernel understood and declined; `message` is its explanation, often empty.
    #[error("{operation}: {}{}{message}", errno.desc(), if message.is_empty() { "" } else { ": " })]
    Refused { operation: String, errno: Errno, message: String },
    #[error("{operation}: the kernel's list kept changing while it was read")]
    Unstable { operation: String },
}

impl Error {
    /// The error number, when the kernel gave one for a request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// The object named is not there (any more).
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL))
    }

    /// The object named is there already.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }
}

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
}

/// One message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Port of the socket whose request this answers or reports.
    pub port: u32,
    pub body: Vec<u8>,
}

/// An open socket. It belongs to the network namespace its opener was in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
}

impl Socket {
    pub fn open(family: Family) -> Result<Socket, Error> {
        Socket::bind(family, 0).map_err(Error::Open)
    }

    /// A non-blocking socket that hears what is announced to the multicast groups.
    pub fn subscribe(family: Family, groups: &[u32]) -> Result<Socket, Error> {
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        Socket::bind(family, mask).map_err(Error::Open)
    }

    fn bind(family: Family, groups: u32) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        socket::setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES)?;
        socket::setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        enable(&fd, libc::NETLINK_EXT_ACK)?;
        enable(&fd, libc::NETLINK_CAP_ACK)?;
        let address: NetlinkAddr = socket::getsockname(fd.as_raw_fd())?;
        Ok(Socket { fd, port: address.pid(), sequence: 0 })
    }

    /// The address of this socket, by which its own changes are recognised among notifications.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a request and waits until the kernel has carried it out. `operation` names it in errors.
    pub fn request(&mut self, operation: &str, message: Message) -> Result<(), Error> {
        let sequence = self.send(&message.with_flags(libc::NLM_F_ACK as u16))?;
        loop {
            for reply in self.receive_blocking()? {
                if reply.sequence == sequence && reply.kind == libc::NLMSG_ERROR as u16 {
                    return refusal(operation, &reply).map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends a request whose answer is one message.
    pub fn get(&mut self, operation: &str, message: Message) -> Result<Reply, Error> {
        let sequence = self.send(&message)?;
        loop {
            for reply in self.receive_blocking()? {
                if reply.sequence != sequence {
                    continue;
                }
                if reply.kind != libc::NLMSG_ERROR as u16 {
                    return Ok(reply);
                }
                if let Some(error) = refusal(operation, &reply) {
                    return Err(error);
                }
            }
        }
    }

    /// Lists: all messages up to the end of the dump, taken again when they are inconsistent.
    pub fn dump(&mut self, operation: &str, message: &Message) -> Result<Vec<Reply>, Error> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            if let Some(replies) = self.dump_once(operation, message)? {
                return Ok(replies);
            }
        }
        Err(Error::Unstable { operation: operation.to_string() })
    }

    fn dump_once(&mut self, operation: &str, message: &Message) -> Result<Option<Vec<Reply>>, Error> {
        let sequence = self.send(&message.clone().with_flags(libc::NLM_F_DUMP as u16))?;
        let (mut replies, mut consistent) = (Vec::new(), true);
        loop {
            for reply in self.receive_blocking()? {
                if reply.sequence != sequence {
                    continue;
                }
                consistent &= reply.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(reply.kind) {
                    libc::NLMSG_ERROR => {
                        if let Some(error) = refusal(operation, &reply) {
                            return Err(error);
                        }
                    }
                    libc::NLMSG_DONE => {
                        return match done_errno(&reply) {
                            Some(Errno::EINTR) => Ok(None),
                            Some(errno) => Err(Error::Refused {
                                operation: operation.to_string(),
                                errno,
                                message: String::new(),
                            }),
                            None => Ok(consistent.then_some(replies)),
                        };
                    }
                    _ => replies.push(reply),
                }
            }
        }
    }

    /// Sends messages that the kernel takes or refuses as one. They carry consecutive sequence
    /// numbers; `name` says what the n-th one does. The kernel has decided when `send` returns.
    pub fn transact(&mut self, messages: &[Message], name: impl Fn(usize) -> String) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut encoded = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            encoded.extend_from_slice(&message.finish(self.sequence, 0));
        }
        self.send_bytes(&encoded)?;
        let mut error = None;
        while let Some(replies) = self.receive()? {
            for reply in replies.iter().filter(|reply| reply.kind == libc::NLMSG_ERROR as u16) {
                let index = reply.sequence.wrapping_sub(first) as usize;
                if error.is_none() && index < messages.len() {
                    error = refusal(&name(index), reply);
                }
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// What has arrived; `None` when there is nothing now.
    pub fn receive(&mut self) -> Result<Option<Vec<Reply>>, Error> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(split(&buffer[..length]))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(Error::Receive(errno)),
        }
    }

    fn receive_blocking(&mut self) -> Result<Vec<Reply>, Error> {
        loop {
            if let Some(replies) = self.receive()? {
                return Ok(replies);
            }
            let mut ready = [nix::poll::PollFd::new(self.fd.as_fd(), nix::poll::PollFlags::POLLIN)];
            match nix::poll::poll(&mut ready, nix::poll::PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Receive(errno)),
            }
        }
    }

    fn send(&mut self, message: &Message) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send_bytes(&message.finish(self.sequence, 0))?;
        Ok(self.sequence)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = NetlinkAddr::new(0, 0);
        socket::sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty()).map_err(Error::Send)?;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

fn enable(fd: &OwnedFd, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the option value points at a live i32 of the size given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Cuts a datagram into its messages; a malformed rest is dropped.
fn split(mut datagram: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(header) = datagram.get(..HEADER_LEN) {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let Some(body) = datagram.get(HEADER_LEN..length) else { break };
        replies.push(Reply {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            port: word(12),
            body: body.to_vec(),
        });
        datagram = datagram.get(align(length)..).unwrap_or_default();
    }
    replies
}

/// The error an `NLMSG_ERROR` carries; `None` when it is an acknowledgement.
fn refusal(operation: &str, reply: &Reply) -> Option<Error> {
    let errno = done_errno(reply)?;
    Some(Error::Refused { operation: operation.to_string(), errno, message: explanation(reply) })
}

fn done_errno(reply: &Reply) -> Option<Errno> {
    let code = i32::from_ne_bytes(reply.body.get(..4)?.try_into().ok()?);
    (code < 0).then(|| Errno::from_raw(-code))
}

/// The extended acknowledgement follows the error code and the echoed request, of which only the
/// header is there when the kernel says that it capped it.
fn explanation(reply: &Reply) -> String {
    if reply.flags & ACK_TLVS == 0 {
        return String::new();
    }
    let echoed = match reply.body.get(4..8) {
        Some(length) if reply.flags & CAPPED == 0 => {
            align(u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize)
        }
        _ => HEADER_LEN,
    };
    let attributes = Attributes(reply.body.get(4 + echoed..).unwrap_or_default());
    attributes.find(ERROR_MESSAGE).map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_names_what_it_refuses() {
        let mut socket = Socket::open(Family::Route).expect("a route socket");
        let mut message = Message::new(libc::RTM_GETLINK, 0);
        message.header(&[0; 16]).text(libc::IFLA_IFNAME, "no-such-link");
        let error = socket.get("get link no-such-link", message).expect_err("there is no such link");
        assert!(error.is_absent(), "{error}");
        assert!(error.to_string().starts_with("get link no-such-link: "), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for reply in split(&bytes) {
                explanation(&reply);
            }
        }
    }
}
