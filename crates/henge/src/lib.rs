//! A node of Henge, a distributed cache that may forget a key and never lies about one.

pub mod allocator;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
mod http;
mod log;
pub mod memory;
mod metrics;
mod net;
mod node;

pub use net::ListenError;
pub use node::{Node, StartError};
