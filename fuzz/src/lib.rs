//! The oracles of the Redis protocol, which live with the tests of `henge-wire` so that these run them too. This crate only
//! lends them to the fuzzer.

#[path = "../../crates/wire/tests/oracle/mod.rs"]
mod oracle;

/// What must hold for requests.
pub fn requests(input: &[u8]) {
    oracle::requests::check(input);
}

/// What must hold for replies.
pub fn replies(input: &[u8]) {
    oracle::replies::check(input);
}
