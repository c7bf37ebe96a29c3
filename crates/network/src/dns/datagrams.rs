//! Datagrams by the batch: one system call takes all that wait, one sends all answers. At a hundred thousand
//! questions a second, entering the kernel for each would cost more than answering.
//!
//! What goes to the same client travels together too, as far as the kernel can tell where one answer ends: answers of
//! one length and one that is shorter (`UDP_SEGMENT`). Routes, filters and connection tracking then see one packet,
//! which is cut when it leaves the machine or reaches the client. A pair of questions, A and AAAA, is such a case.

use std::cmp::Reverse;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Taken at once. More would let the first of them wait noticeably for the last.
const COUNT_MAX: usize = 64;

/// Bytes of answers that travel together: what a datagram can hold (RFC 768), its headers apart.
const RUN_LEN_MAX: usize = 65_000;

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
    /// The answers there are, by client, the longest first.
    order: Vec<usize>,
    /// Parts of `order` that travel together.
    runs: Vec<Range<usize>>,
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
            order: Vec::with_capacity(COUNT_MAX),
            runs: Vec::with_capacity(COUNT_MAX),
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
            let room = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header(address, room, &mut parts[at..=at])
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
        self.arrange();
        let mut next = 0;
        while next < self.runs.len() {
            match socket.try_io(Interest::WRITABLE, || self.send_runs(socket.as_raw_fd(), next)) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(_) if self.runs[next].len() > 1 => self.separate(next),
                Err(error) => {
                    tracing::debug!(%error, "send DNS answer");
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// Finds what can travel together.
    fn arrange(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend((0..self.count).filter(|at| !self.answers[*at].is_empty()));
        order.sort_unstable_by_key(|at| (self.client_bytes(*at), Reverse(self.answers[*at].len())));
        self.runs.clear();
        let mut start = 0;
        for end in 1..=order.len() {
            if end == order.len() || !self.joins(&order[start..end], order[end]) {
                self.runs.push(start..end);
                start = end;
            }
        }
        self.order = order;
    }

    /// Whether an answer can follow those: to the same client, with only the last shorter than the others.
    fn joins(&self, run: &[usize], at: usize) -> bool {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
        let (longest, len) = (self.answers[*first].len(), self.answers[at].len());
        self.client_bytes(*first) == self.client_bytes(at)
            && self.answers[*last].len() == longest
            && longest * run.len() + len <= RUN_LEN_MAX
    }

    /// Has answers travel alone that could not together: not every device or path takes them so.
    fn separate(&mut self, run: usize) {
        let alone = self.runs[run].clone().map(|at| at..at + 1);
        self.runs.splice(run..=run, alone);
    }

    /// Sends the runs from `first` on, which there are; tells how many of them went.
    fn send_runs(&mut self, socket: RawFd, first: usize) -> io::Result<usize> {
        let mut parts: [libc::iovec; COUNT_MAX] = std::array::from_fn(|_| part(&mut []));
        for (at, part_of) in self.order.iter().zip(&mut parts) {
            *part_of = part(&mut self.answers[*at]);
        }
        let mut lengths = [SegmentLength::default(); COUNT_MAX];
        let mut headers: [libc::mmsghdr; COUNT_MAX] =
            std::array::from_fn(|_| header(std::ptr::null_mut(), 0, &mut []));
        let runs = &self.runs[first..];
        for ((run, to), length) in runs.iter().zip(&mut headers).zip(&mut lengths) {
            let longest = self.order[run.start];
            let client: *mut libc::sockaddr_storage = &mut self.clients[longest];
            *to = header(client, self.client_lengths[longest], &mut parts[run.clone()]);
            if run.len() > 1 {
                *length = SegmentLength::of(self.answers[longest].len() as u16);
                to.msg_hdr.msg_control = (length as *mut SegmentLength).cast();
                to.msg_hdr.msg_controllen = size_of::<SegmentLength>();
            }
        }
        // SAFETY: each header points to an address, parts and control data of its own, which live through the call.
        let sent =
            unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), runs.len() as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// The client's address as the kernel wrote it.
    fn client_bytes(&self, at: usize) -> &[u8] {
        let client: *const libc::sockaddr_storage = &self.clients[at];
        let len = (self.client_lengths[at] as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: so many bytes are there, and all of them were written: zeroed first, then by the kernel.
        unsafe { std::slice::from_raw_parts(client.cast(), len) }
    }
}

/// Control data that says how long each datagram is of those that are sent together.
#[repr(C)]
#[derive(Clone, Copy)]
struct SegmentLength {
    header: libc::cmsghdr,
    length: u16,
}

impl SegmentLength {
    fn of(length: u16) -> SegmentLength {
        let (level, kind) = (libc::SOL_UDP, libc::UDP_SEGMENT);
        // SAFETY: computes a length only.
        let len = unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as usize;
        SegmentLength { header: libc::cmsghdr { cmsg_len: len, cmsg_level: level, cmsg_type: kind }, length }
    }
}

impl Default for SegmentLength {
    fn default() -> SegmentLength {
        SegmentLength::of(0)
    }
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn header(
    address: *mut libc::sockaddr_storage,
    address_len: libc::socklen_t,
    parts: &mut [libc::iovec],
) -> libc::mmsghdr {
    // SAFETY: all zeroes are a header without control data.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = address.cast();
    header.msg_hdr.msg_namelen = address_len;
    header.msg_hdr.msg_iov = parts.as_mut_ptr();
    header.msg_hdr.msg_iovlen = parts.len();
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Namespace;

    /// How long the answer is to a question of one byte.
    const LENGTHS: [usize; 4] = [300, 40, 300, 1300];

    /// Two clients ask all questions, and each gets all answers; how many packets took them is told.
    async fn exchange(address: &str) -> usize {
        let server = UdpSocket::bind(address).await.unwrap();
        let clients = [0; 2].map(|_| std::net::UdpSocket::bind(address).unwrap());
        for (question, client) in (0..LENGTHS.len()).flat_map(|at| clients.iter().map(move |to| (at, to))) {
            client.send_to(&[question as u8], server.local_addr().unwrap()).unwrap();
        }
        let mut datagrams = Datagrams::new();
        server.readable().await.unwrap();
        assert_eq!(datagrams.receive(&server).unwrap(), LENGTHS.len() * clients.len());
        for at in 0..LENGTHS.len() * clients.len() {
            let (question, answer) = datagrams.exchange(at);
            answer.resize(LENGTHS[usize::from(question[0])], question[0]);
        }
        datagrams.send(&server).await.unwrap();
        for client in &clients {
            let mut came: Vec<Vec<u8>> = LENGTHS.iter().map(|_| receive(client)).collect();
            came.sort();
            let all = LENGTHS.iter().enumerate().map(|(question, len)| vec![question as u8; *len]);
            assert_eq!(came, all.collect::<Vec<_>>());
        }
        datagrams.runs.len()
    }

    fn receive(client: &std::net::UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 2048];
        client.set_read_timeout(Some(crate::testing::PATIENCE)).unwrap();
        let length = client.recv(&mut buffer).expect("every answer comes");
        buffer[..length].to_vec()
    }

    #[test]
    fn answers_to_one_client_travel_together_and_arrive_one_by_one() {
        // The longest with one that is shorter, and the two that are left.
        assert_eq!(Namespace::new().block_on(async || exchange("127.0.0.1:0").await), 4);
    }

    #[test]
    fn where_answers_cannot_travel_together_they_travel_alone() {
        let packets = Namespace::new().block_on(async || {
            std::fs::write("/proc/sys/net/ipv6/conf/lo/mtu", "1280").unwrap();
            exchange("[::1]:0").await
        });
        assert_eq!(packets, 6, "what is too long for the path goes in pieces, and its companion by itself");
    }
}
