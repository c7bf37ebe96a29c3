//! Requests against a server over a store in a temporary directory, through the in-process transport.

mod admission;
mod aggregating;
mod auditing;
mod authenticating;
mod authorizing;
mod cbor;
mod conversion;
mod customresources;
mod deleting;
mod discovering;
mod fixture;
mod flowcontrol;
mod forwarding;
mod listing;
mod ownership;
mod policies;
mod serving;
mod sharing;
mod subresources;
mod upkeep;
mod watching;
mod webhook_server;
mod writing;
