//! The Redis serialization protocol, RESP2 and RESP3: bytes in, bytes out. This module knows no command; it turns bytes
//! into replies and arguments into bytes, within bounds that its callers set.

pub mod encode;
pub mod reply;
