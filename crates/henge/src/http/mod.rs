//! The HTTP interface: one table of routes, the data routes answered inline on the data threads, the rest by axum on the
//! control runtime. It knows commands and replies, and nothing of shards, sockets or threads.

mod access;
mod agreed;
mod api_keys;
mod backup;
mod batch;
mod body;
mod conditions;
mod console;
mod control;
pub(crate) mod cors;
mod health;
mod insight;
pub(crate) mod json;
mod keys;
mod lifetime;
mod nodes;
mod openapi;
mod pages;
pub(crate) mod query;
mod raw;
mod requests;
mod restore;
mod single;

pub(crate) mod level;
pub(crate) mod problem;
pub(crate) mod routes;
pub(crate) mod service;
mod settings;

pub(crate) use backup::{X_NEXT_PLACE, X_TERM};
pub(crate) use control::{CALLS, Call, Control, serve as serve_control};
