//! The partition protocol in one thread: a simulator with network, disks and clocks from a seed, and a model. Not shipped.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "times, values and places of a simulated world are small"
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::struct_excessive_bools,
    reason = "a world hands over what happens, and faults are on or off"
)]

pub mod carrier;
pub mod clients;
pub mod control;
pub mod coverage;
pub mod engine;
mod faults;
pub mod ghost;
pub mod history;
pub mod membership;
pub mod model;
pub mod network;
pub mod node;
pub mod plan;
pub mod run;
pub mod shrink;
pub mod store;
pub mod sweep;
pub mod toy;
pub mod world;

#[cfg(test)]
mod planted;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod small_world;
#[cfg(test)]
mod tests;
