//! The Redis protocol, RESP2 and RESP3: bytes in, bytes out. What a command means is not known here.

pub mod request;
pub mod writer;
