//! The commands, each defined and run in the file of its kind. A type of data has one file, or one for each family of its
//! commands; another type is another file and another line here.

#![expect(
    clippy::unnecessary_wraps,
    reason = "handlers are of one type, though many never refuse"
)]

mod aside;
mod bits;
mod client;
mod client_filter;
pub(super) mod cluster;
mod command;
mod config;
mod connection;
mod counters;
mod expiry;
mod flush;
mod hello;
mod henge;
mod info;
mod keys;
mod latency;
mod many;
mod memory;
mod object;
mod ranges;
mod rename;
mod save;
pub(super) mod scan;
mod server;
mod set_options;
mod slowlog;
mod steps;
mod strings;

use super::table::Spec;

/// The definitions of all files.
pub(super) const ALL: &[&[Spec]] = &[
    strings::COMMANDS,
    counters::COMMANDS,
    ranges::COMMANDS,
    many::COMMANDS,
    bits::COMMANDS,
    connection::COMMANDS,
    hello::COMMANDS,
    client::COMMANDS,
    command::COMMANDS,
    info::COMMANDS,
    config::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    server::COMMANDS,
    save::COMMANDS,
    henge::COMMANDS,
    keys::COMMANDS,
    expiry::COMMANDS,
    scan::COMMANDS,
    rename::COMMANDS,
    object::COMMANDS,
    memory::COMMANDS,
    flush::COMMANDS,
    cluster::COMMANDS,
];
