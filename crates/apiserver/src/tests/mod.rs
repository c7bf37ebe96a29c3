//! Requests against a server over a store in a temporary directory, through the in-process transport.

mod admission;
mod conversion;
mod customresources;
mod deleting;
mod discovering;
mod fixture;
mod forwarding;
mod listing;
mod serving;
mod subresources;
mod watching;
mod webhook_server;
mod writing;
