//! Hearing when somebody else, or the kernel itself, changes routes: a link that goes down takes
//! the routes through it along and does not bring them back.

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

use crate::netlink::{Error, Family, Reply, Socket};

/// `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 2] = [7, 11];

/// Reports changes of routes to networks, those to single addresses apart: pods come and go.
#[derive(Debug)]
pub struct RouteChanges {
    socket: AsyncFd<Socket>,
    own_port: u32,
}

impl RouteChanges {
    /// `own_port` is whose changes are none.
    pub(super) fn open(own_port: u32) -> Result<RouteChanges, Error> {
        let socket = Socket::subscribe(Family::Route, &GROUPS)?;
        // SAFETY: the socket owns its descriptor, which never changes while the socket lives.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|refused| Error::Open(refused.into()))?;
        Ok(RouteChanges { socket, own_port })
    }

    /// Returns once there was a change. Cancel safe.
    pub async fn happened(&mut self) -> Result<(), Error> {
        loop {
            let mut ready = self.socket.readable_mut().await.map_err(Error::Open)?;
            match ready.get_inner_mut().receive() {
                Ok(Some(replies)) if replies.iter().any(|reply| concerns_network(reply, self.own_port)) => {
                    return Ok(());
                }
                Ok(Some(_)) => {}
                Ok(None) => ready.clear_ready(),
                // Notifications were lost: there may have been one.
                Err(Error::Receive(Errno::ENOBUFS)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn concerns_network(reply: &Reply, own_port: u32) -> bool {
    let of_routes = [libc::RTM_NEWROUTE, libc::RTM_DELROUTE].contains(&reply.kind);
    // `rtmsg`: family, then the length of the destination's prefix, and the table.
    let Some(&[family, prefix_len, _, _, table, ..]) = reply.body.get(..8) else { return false };
    let whole = if i32::from(family) == libc::AF_INET { 32 } else { 128 };
    of_routes && reply.port != own_port && table == libc::RT_TABLE_MAIN && prefix_len < whole
}
