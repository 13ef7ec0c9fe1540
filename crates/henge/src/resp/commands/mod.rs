//! The commands, each defined and run in the file of its kind. A type of data has one file, or one for each family of its
//! commands; another type is another file and another line here.

mod aside;
mod client;
mod client_filter;
mod command;
mod config;
mod connection;
mod hello;
mod henge;
mod info;
mod latency;
mod memory;
mod server;
mod slowlog;
mod strings;

use super::table::Spec;

/// The definitions of all files.
pub(super) const ALL: &[&[Spec]] = &[
    strings::COMMANDS,
    connection::COMMANDS,
    hello::COMMANDS,
    client::COMMANDS,
    command::COMMANDS,
    info::COMMANDS,
    config::COMMANDS,
    memory::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    server::COMMANDS,
    henge::COMMANDS,
];
