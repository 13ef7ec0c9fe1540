//! The protocol step by step: a lab in which nothing happens that a test does not say, and what is told in it. What chance tells is
//! in `crates/sim`.

mod copies;
mod lab;
mod losses;
mod memory;
mod terms;

use super::*;
use crate::topology::Command;
use henge_wire::Version;
