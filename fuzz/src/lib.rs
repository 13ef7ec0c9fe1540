//! The oracles, which live with the tests of `henge-wire`, `henge-engine` and `henge-cluster` so that these run them too. This crate only lends
//! them to the fuzzer.

#[path = "../../crates/cluster/tests/oracle/mod.rs"]
mod cluster;
#[path = "../../crates/engine/tests/oracle/mod.rs"]
mod files;
#[path = "../../crates/wire/tests/oracle/mod.rs"]
mod protocol;

/// What must hold for requests.
pub fn requests(input: &[u8]) {
    protocol::requests::check(input);
}

/// What must hold for replies.
pub fn replies(input: &[u8]) {
    protocol::replies::check(input);
}

/// What must hold for segments of the log.
pub fn log(input: &[u8]) {
    files::log::check(input);
}

/// What must hold for snapshots.
pub fn snapshot(input: &[u8]) {
    files::snapshot::check(input);
}

/// What must hold for what another node says.
pub fn peer(input: &[u8]) {
    protocol::peer::check(input);
}

/// What must hold for what another node asks about keys, and answers.
pub fn keys(input: &[u8]) {
    protocol::keys::check(input);
}

/// What must hold for what somebody says of who lives.
pub fn gossip(input: &[u8]) {
    cluster::gossip::check(input);
}

/// What must hold for what is said as a link begins.
pub fn greeting(input: &[u8]) {
    cluster::greeting::check(input);
}

/// What must hold for datagrams as they come to a node's port.
pub fn sealed(input: &[u8]) {
    cluster::sealed::check(input);
}

/// What must hold for what the replicas of another node say.
pub fn frames(input: &[u8]) {
    cluster::frames::check(input);
}
