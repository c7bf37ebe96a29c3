//! nf_tables over netlink: what a table should hold ([`Ruleset`], plain data), the difference of
//! two as one transaction ([`Batch`]), and the upkeep of a table that others may flush
//! ([`Programmed`], [`Disturbance`]).
//!
//! Only what the pod network and the service proxy use is here: one `inet` table of our own, named
//! sets and maps with concatenated keys, and the expressions in [`Expression`].

mod batch;
mod expression;
mod family;
mod keeper;
mod list;
mod ruleset;

pub use batch::{Batch, Edit};
pub use expression::{CtKey, Expression, MetaKey, PayloadBase, Register, Verdict};
pub use family::{
    IpFamily, any_local_destination, destination_translated, invalid_connection, known_connection,
    new_connection, source_is_local,
};
pub use keeper::{Disturbance, Programmed};
pub use list::{Listing, delete_tables, tables};
pub use ruleset::{Chain, Concat, Data, DataType, Hook, HookType, Rule, Ruleset, Set, Type};

/// The subsystem number nf_tables has inside `NETLINK_NETFILTER`.
const SUBSYSTEM: u16 = 10;

/// `NFNLGRP_NFTABLES`: where every change of any table is announced.
const GROUP: u32 = 7;

/// Message types (`nf_tables_msg_types`).
mod msg {
    pub const NEWTABLE: u16 = 0;
    pub const GETTABLE: u16 = 1;
    pub const DELTABLE: u16 = 2;
    pub const NEWCHAIN: u16 = 3;
    pub const GETCHAIN: u16 = 4;
    pub const DELCHAIN: u16 = 5;
    pub const NEWRULE: u16 = 6;
    pub const GETRULE: u16 = 7;
    pub const DELRULE: u16 = 8;
    pub const NEWSET: u16 = 9;
    pub const GETSET: u16 = 10;
    pub const DELSET: u16 = 11;
    pub const NEWSETELEM: u16 = 12;
    pub const GETSETELEM: u16 = 13;
    pub const DELSETELEM: u16 = 14;
    pub const NEWGEN: u16 = 15;
}

/// In the messages of every object kind, attribute 1 is the table's name.
const ATTR_TABLE: u16 = 1;

/// A message of this subsystem about an `inet` table.
fn message(kind: u16, flags: i32) -> crate::netlink::Message {
    let mut message = crate::netlink::Message::new(SUBSYSTEM << 8 | kind, flags as u16);
    message.header(&[libc::NFPROTO_INET as u8, 0, 0, 0]);
    message
}
