//! The partition protocol in one thread: a simulator with network, disks and clocks from a seed, and a model. Not shipped.

pub mod map;
