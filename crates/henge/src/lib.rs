//! The node: what Henge is once engine and wire meet sockets, clocks and memory.

pub mod allocator;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod housekeeping;
pub mod memory;
