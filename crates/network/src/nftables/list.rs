//! Reading back what the kernel holds: which tables there are and what is in one.

use std::collections::BTreeMap;

use super::{ATTR_TABLE, Batch, message, msg};
use crate::netlink::{Attributes, Error, Message, Reply, Socket, text};

/// Length of `nfgenmsg`, which precedes the attributes.
const HEADER_LEN: usize = 4;

/// What one table holds: numbers of rules per chain and of elements per set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub rules: BTreeMap<String, usize>,
    pub elements: BTreeMap<String, usize>,
}

impl Listing {
    /// `None` if there is no such table.
    pub fn of(socket: &mut Socket, table: &str) -> Result<Option<Listing>, Error> {
        if !tables(socket)?.iter().any(|name| name == table) {
            return Ok(None);
        }
        let mut listing = Listing::default();
        for name in names(socket, msg::GETCHAIN, table, 3)? {
            listing.rules.insert(name, 0);
        }
        for chain in names(socket, msg::GETRULE, table, 2)? {
            *listing.rules.entry(chain).or_default() += 1;
        }
        for name in names(socket, msg::GETSET, table, 2)? {
            let count = count_elements(socket, table, &name)?;
            listing.elements.insert(name, count);
        }
        Ok(Some(listing))
    }
}

/// The names of all `inet` tables.
pub fn tables(socket: &mut Socket) -> Result<Vec<String>, Error> {
    let replies = socket.dump("list nf_tables tables", &message(msg::GETTABLE, 0))?;
    Ok(replies.iter().filter_map(|reply| name(reply, ATTR_TABLE)).collect())
}

/// Deletes those of our tables that exist.
pub fn delete_tables(socket: &mut Socket, names: &[&str]) -> Result<(), Error> {
    for table in tables(socket)?.iter().filter(|table| names.contains(&table.as_str())) {
        Batch::remove(table).commit(socket)?;
    }
    Ok(())
}

fn names(socket: &mut Socket, kind: u16, table: &str, attribute: u16) -> Result<Vec<String>, Error> {
    let replies = socket.dump("list nf_tables objects", &in_table(kind, table))?;
    Ok(replies
        .iter()
        .filter(|reply| name(reply, ATTR_TABLE).as_deref() == Some(table))
        .filter_map(|reply| name(reply, attribute))
        .collect())
}

fn count_elements(socket: &mut Socket, table: &str, set: &str) -> Result<usize, Error> {
    let mut request = in_table(msg::GETSETELEM, table);
    request.text(2, set);
    let replies = socket.dump("list nf_tables set elements", &request)?;
    Ok(replies.iter().map(|reply| attributes(reply).nested(3).count()).sum())
}

fn in_table(kind: u16, table: &str) -> Message {
    let mut request = message(kind, 0);
    request.text(ATTR_TABLE, table);
    request
}

fn name(reply: &Reply, attribute: u16) -> Option<String> {
    attributes(reply).find(attribute).map(text)
}

pub(super) fn attributes(reply: &Reply) -> Attributes<'_> {
    Attributes(reply.body.get(HEADER_LEN..).unwrap_or_default())
}
