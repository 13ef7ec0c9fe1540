//! What the tests of this crate and those of `crates/sim` share, behind the feature `bugs`: the smallest table there is, and
//! chance. In no program that is shipped.

pub mod map;
pub mod random;
