//! The Redis serialization protocol, RESP2 and RESP3: bytes in, bytes out. This module knows no command; a server reads
//! requests and writes replies with it, a client the other way round, within bounds that they set.

pub mod encode;
pub mod reply;
pub mod request;
pub mod writer;
