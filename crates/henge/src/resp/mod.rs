//! The Redis protocol: connections, their sessions, and one table of commands. It knows commands and replies of `wire` and
//! the cache behind its face, and nothing of shards or of HTTP.

mod acknowledged;
mod again;
mod call;
mod categories;
mod clients;
mod commands;
mod connection;
mod counted;
mod forward;
mod forwarded;
mod held;
mod help;
mod key_specs;
mod latency;
#[cfg(test)]
mod page;
mod pause;
mod pipeline;
mod server;
mod session;
mod sizes;
mod spread;
mod statistics;
mod syntax;
mod table;
mod update;

pub(crate) use clients::Client;
pub(crate) use connection::{caller_of, serve};
pub(crate) use forwarded::answer as answer_forwarded;
pub(crate) use pipeline::Scratch;
pub(crate) use server::Server;
pub(crate) use table::COMMANDS;
