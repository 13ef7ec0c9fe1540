//! What must hold for any bytes that another node sends, as functions that panic where it does not. The tests of this crate and
//! the targets of `fuzz/` call the same ones.

pub(crate) mod frames;
pub(crate) mod gossip;
pub(crate) mod greeting;
pub(crate) mod sealed;
