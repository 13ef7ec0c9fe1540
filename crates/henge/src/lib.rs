//! The node: what Henge is once engine and wire meet sockets, clocks and memory.

pub mod allocator;
pub mod clock;
pub mod memory;
