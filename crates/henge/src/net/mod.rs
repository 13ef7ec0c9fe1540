//! The way of a connection: the acceptor takes it, a data thread keeps it, its time-outs close it. What is said over it
//! is not known here, but to `connection`, which hands the bytes to the protocol.

pub(crate) mod acceptor;
pub(crate) mod addresses;
pub(crate) mod connection;
pub(crate) mod data_thread;
pub(crate) mod endings;
pub(crate) mod handles;
pub(crate) mod inflight;
pub(crate) mod listen;
pub(crate) mod pace;
pub(crate) mod socket;
pub(crate) mod watch;

pub use listen::ListenError;
