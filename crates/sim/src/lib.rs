//! The partition protocol in one thread: a simulator with network, disks and clocks from a seed, and a model. Not shipped.

pub mod map;

#[cfg(test)]
mod planted;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod small_world;
