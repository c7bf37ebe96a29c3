//! Keeping a table as it should be: applying differences, and hearing when somebody else changed
//! it (`nft flush ruleset`, a firewall's restart) so that it can be put back.

use tokio::io::unix::AsyncFd;

use super::list::attributes;
use super::{ATTR_TABLE, Batch, GROUP, Ruleset, SUBSYSTEM, msg, tables};
use crate::netlink::{Error, Family, Socket, text};

/// A table in the kernel together with what we last put there.
#[derive(Debug)]
pub struct Programmed {
    socket: Socket,
    table: String,
    /// What the kernel holds, as far as we know; `None` before the first success or after a failure.
    current: Option<Ruleset>,
}

impl Programmed {
    /// Nothing is changed before the first [`Programmed::apply`].
    pub fn open(table: impl Into<String>) -> Result<Programmed, Error> {
        Ok(Programmed { socket: Socket::open(Family::Netfilter)?, table: table.into(), current: None })
    }

    /// Makes the table hold `desired`, by the difference where the present content is known.
    pub fn apply(&mut self, desired: Ruleset) -> Result<(), Error> {
        let incremental = self.current.take().map(|current| Batch::between(&current, &desired));
        let applied = match incremental {
            Some(batch) => batch.commit(&mut self.socket).or_else(|error| {
                tracing::warn!(%error, table = self.table, "nf_tables refused a change, replacing the table");
                Batch::replace(&desired).commit(&mut self.socket)
            }),
            None => Batch::replace(&desired).commit(&mut self.socket),
        };
        applied?;
        self.current = Some(desired);
        Ok(())
    }

    /// Carries out changes that the caller keeps account of.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        self.current = None;
        batch.commit(&mut self.socket)
    }

    /// Puts back what we last applied, whatever the table holds now.
    pub fn restore(&mut self) -> Result<(), Error> {
        match self.current.take() {
            Some(current) => {
                Batch::replace(&current).commit(&mut self.socket)?;
                self.current = Some(current);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Deletes the table.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.current = None;
        Batch::remove(&self.table).commit(&mut self.socket)
    }

    /// Somebody changed the table: the next [`Programmed::apply`] replaces it.
    pub fn forget(&mut self) {
        self.current = None;
    }

    pub fn name(&self) -> &str {
        &self.table
    }

    /// Starts listening for changes that others make to this table.
    pub fn disturbance(&self) -> Result<Disturbance, Error> {
        let socket = Socket::subscribe(Family::Netfilter, &[GROUP])?;
        // SAFETY: the socket owns its descriptor, which never changes while the socket lives.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|refused| Error::Open(refused.into()))?;
        let query = Socket::open(Family::Netfilter)?;
        Ok(Disturbance { socket, query, table: self.table.clone(), own_port: self.socket.port() })
    }
}

/// Reports that somebody else touched the table.
#[derive(Debug)]
pub struct Disturbance {
    socket: AsyncFd<Socket>,
    /// For asking whether the table is still there when notifications were lost.
    query: Socket,
    table: String,
    own_port: u32,
}

impl Disturbance {
    /// Returns once somebody else changed or deleted the table. Cancel safe.
    pub async fn happened(&mut self) -> Result<(), Error> {
        loop {
            let mut ready = self.socket.readable_mut().await.map_err(Error::Open)?;
            let disturbed = match ready.get_inner_mut().receive() {
                Ok(Some(replies)) => replies.iter().any(|reply| {
                    reply.kind >> 8 == SUBSYSTEM
                        && reply.kind & 0xff != msg::NEWGEN
                        && reply.port != self.own_port
                        && attributes(reply).find(ATTR_TABLE).map(text).as_deref()
                            == Some(self.table.as_str())
                }),
                Ok(None) => {
                    ready.clear_ready();
                    false
                }
                // Notifications were lost, most often our own; only a missing table matters then.
                Err(Error::Receive(nix::errno::Errno::ENOBUFS)) => {
                    !tables(&mut self.query)?.contains(&self.table)
                }
                Err(error) => return Err(error),
            };
            if disturbed {
                return Ok(());
            }
        }
    }
}
