//! A node of Henge, a distributed cache that may forget a key and never lies about one.
//!
//! The `henge` binary is thin over [`Node`], which also starts inside a program or a test:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! let data = std::env::temp_dir().join(format!("henge-example-{}", std::process::id()));
//! let node = henge::Node::builder().persist_in(&data).start()?;
//!
//! let mut stream = TcpStream::connect(node.local_addr())?;
//! stream.write_all(b"PUT /cache/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"));
//!
//! assert!(node.shutdown());
//! std::fs::remove_dir_all(data)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod admin;
pub mod allocator;
mod aside;
mod audit;
mod builder;
pub mod cache;
mod calendar;
pub mod cli;
pub mod clock;
mod cluster;
pub mod config;
mod disk;
#[cfg(test)]
mod docs_page;
mod encryption;
mod housekeeping;
mod http;
mod insight;
mod log;
pub mod memory;
mod metrics;
mod net;
mod node;
mod rate;
mod resp;
mod shared;
mod tls;
mod traces;
mod values;

pub use access::KeyFileError;
pub use builder::NodeBuilder;
pub use encryption::{Keys, KeysError};
pub use net::ListenError;
pub use node::{Node, StartError};
pub use tls::TlsError;

/// The example of the page on embedding.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct Embedding;
