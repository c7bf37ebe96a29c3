//! Datagrams by the batch: one system call takes all that wait, one sends all answers. At a hundred thousand
//! questions a second, entering the kernel for each would cost more than answering.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Taken at once. More would let the first of them wait noticeably for the last.
const COUNT_MAX: usize = 32;

/// Room for one question. With EDNS one may be longer, but a name, a type and options are not.
const QUESTION_LEN_MAX: usize = 2048;

/// Some questions, and what they are answered with.
pub struct Datagrams {
    questions: Box<[[u8; QUESTION_LEN_MAX]]>,
    lengths: [usize; COUNT_MAX],
    clients: Box<[libc::sockaddr_storage]>,
    client_lengths: [libc::socklen_t; COUNT_MAX],
    /// Empty where there is nothing to send.
    answers: Box<[Vec<u8>]>,
    count: usize,
}

impl Datagrams {
    pub fn new() -> Datagrams {
        // SAFETY: all zeroes are an address of no family.
        let nobody: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Datagrams {
            questions: vec![[0; QUESTION_LEN_MAX]; COUNT_MAX].into(),
            lengths: [0; COUNT_MAX],
            clients: vec![nobody; COUNT_MAX].into(),
            client_lengths: [0; COUNT_MAX],
            answers: vec![Vec::new(); COUNT_MAX].into(),
            count: 0,
        }
    }

    /// Takes what waits at the socket; tells how many, none if nothing does after all.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.answers.iter_mut().for_each(Vec::clear);
        self.count = 0;
        match socket.try_io(Interest::READABLE, || self.receive_from(socket.as_raw_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            received => received,
        }
    }

    fn receive_from(&mut self, socket: RawFd) -> io::Result<usize> {
        let mut parts: [libc::iovec; COUNT_MAX] = std::array::from_fn(|at| part(&mut self.questions[at]));
        let mut headers: [libc::mmsghdr; COUNT_MAX] = std::array::from_fn(|at| {
            let address: *mut libc::sockaddr_storage = &mut self.clients[at];
            header(address, size_of::<libc::sockaddr_storage>() as libc::socklen_t, &mut parts[at])
        });
        // SAFETY: each header points to an address and a part of its own, which live through the call.
        let received = unsafe {
            libc::recvmmsg(
                socket,
                headers.as_mut_ptr(),
                COUNT_MAX as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (at, header) in headers.iter().enumerate().take(self.count) {
            let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            self.lengths[at] = if is_whole { header.msg_len as usize } else { 0 };
            self.client_lengths[at] = header.msg_hdr.msg_namelen;
        }
        Ok(self.count)
    }

    /// A question, and where its answer goes. One that was cut off is empty.
    pub fn exchange(&mut self, at: usize) -> (&[u8], &mut Vec<u8>) {
        (&self.questions[at][..self.lengths[at]], &mut self.answers[at])
    }

    pub fn client(&self, at: usize) -> Option<SocketAddr> {
        let address: *const libc::sockaddr_storage = &self.clients[at];
        // SAFETY: the kernel wrote an address of that length there.
        let client = unsafe { SockaddrStorage::from_raw(address.cast(), Some(self.client_lengths[at])) }?;
        let v4 = client.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
        v4.or_else(|| client.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
    }

    /// Sends the answers there are. What a client does not get it asks for again, so a failure ends nothing.
    pub async fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut next = 0;
        loop {
            while next < self.count && self.answers[next].is_empty() {
                next += 1;
            }
            if next == self.count {
                return Ok(());
            }
            let run = (next..self.count).take_while(|at| !self.answers[*at].is_empty()).count();
            match socket.try_io(Interest::WRITABLE, || self.send_to(socket.as_raw_fd(), next..next + run)) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(error) => {
                    tracing::debug!(%error, "send DNS answer");
                    next += 1;
                }
            }
        }
    }

    fn send_to(&mut self, socket: RawFd, range: std::ops::Range<usize>) -> io::Result<usize> {
        let mut parts: [libc::iovec; COUNT_MAX] = std::array::from_fn(|at| part(&mut self.answers[at]));
        let mut headers: [libc::mmsghdr; COUNT_MAX] = std::array::from_fn(|at| {
            let address: *mut libc::sockaddr_storage = &mut self.clients[at];
            header(address, self.client_lengths[at], &mut parts[at])
        });
        let chosen = &mut headers[range];
        // SAFETY: each header points to an address and an answer of its own, which live through the call.
        let sent =
            unsafe { libc::sendmmsg(socket, chosen.as_mut_ptr(), chosen.len() as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn header(
    address: *mut libc::sockaddr_storage,
    address_len: libc::socklen_t,
    part: &mut libc::iovec,
) -> libc::mmsghdr {
    // SAFETY: all zeroes are a header without control data.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = address.cast();
    header.msg_hdr.msg_namelen = address_len;
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    header
}
