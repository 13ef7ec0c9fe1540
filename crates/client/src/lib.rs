//! The Rust client of Henge: keys and values over the Redis protocol (`redis://host:port`) or HTTP (`http://host:port`).
//!
//! A [`Client`] is a bounded pool of connections to each server, cheap to clone and to share between tasks. It starts no task: what it does
//! happens inside the futures it returns, and when it is dropped its connections are closed.
//!
//! ```no_run
//! use std::time::Duration;
//! use henge_client::{Client, SetOptions};
//!
//! # async fn example() -> Result<(), henge_client::Error> {
//! let client = Client::connect("redis://localhost:8080").await?;
//!
//! let an_hour = SetOptions::new().ttl(Duration::from_secs(3600));
//! client.set("greeting", "hello", an_hour).await?;
//! assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! let mut scan = client.scan("greet*");
//! while let Some(keys) = scan.next_page().await? {
//!     for key in keys {
//!         client.del(&key).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What an error says
//!
//! [`Error`] tells apart what is known from what is not. A write that was sent and not answered is [`Error::Unknown`]: the
//! server may have carried it out, or may yet. It is never sent again. All other errors of a write mean that nothing was changed. A
//! read whose connection breaks is sent once more, on a fresh connection.
//!
//! # Clusters
//!
//! The URL may be that of any member of a cluster, of Henge or of Redis, or of several with commas between them, of which one has to be
//! there: `redis://a:8080,redis://b:8080`. The client asks for the map (`CLUSTER SHARDS` or `CLUSTER SLOTS`, over HTTP `/cluster/status`) and sends each
//! request to the member that owns its key. `MOVED` and `ASK` are followed, for a write too, as they say that nothing was done. Where an
//! owner cannot be reached, or failed a moment ago, the request goes to another member, which of Henge forwards it: of two
//! that are drawn the one with the lower latency and fewer requests under way. What a member refuses while it loads, or while
//! its part of the cluster is without a leader, is repeated after a pause, within the request's time-out.
//!
//! The map is asked for again beside a request when one was sent elsewhere, when a member is gone, and once a minute. A
//! server that knows of no cluster is the only one that is used.
//!
//! # Many requests at once
//!
//! A [`Connection`] is one connection without the pool, and [`Connection::pipeline`] sends many requests over it before the
//! first is answered.
//!
//! # One call and not the others
//!
//! A client is cheap to clone, and [`Client::at_level`] and [`Client::with_deadline`] make clones that differ in one thing: the
//! consistency level, and the moment after which nobody waits for an answer.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use henge_client::{Client, ConsistencyLevel, SetOptions};
//!
//! # async fn example() -> Result<(), henge_client::Error> {
//! let client = Client::connect("redis://localhost:8080").await?;
//!
//! let surely = client.at_level(ConsistencyLevel::All);
//! surely.set("order:7", "paid", SetOptions::new()).await?;
//!
//! // Both of them together have 50 ms.
//! let soon = client.with_deadline(Instant::now() + Duration::from_millis(50));
//! let name = soon.get("name").await?;
//! let address = soon.get("address").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Values with types
//!
//! [`Client::set_as`] and [`Client::get_as`] store and read what serde can make JSON of.
//!
//! # TLS
//!
//! `rediss://host:port` and `https://host:port` are the same protocols over TLS 1.2 or 1.3, by rustls. [`Builder::tls`] says which
//! authorities are trusted, as none are built in, and which certificate the client shows, if it has one.
//!
//! # Values that servers cannot read
//!
//! With [`Builder::encryption`] values are sealed before they are sent, and opened when they come back.

mod api_key;
mod balance;
mod client;
mod cluster;
mod connection;
mod encryption;
mod error;
mod http;
mod map;
mod pool;
mod request;
mod resp;
mod scan;
mod socket;
mod target;
mod tls;
mod typed;

pub use api_key::ApiKey;
pub use client::{Builder, Client};
pub use connection::{Connection, Settings};
pub use encryption::{EncryptionError, EncryptionKeys, EncryptionKeysError};
pub use error::{Cause, Error};
pub use request::{Answer, Condition, ConsistencyLevel, Lifetime, Request, SetOptions};
pub use scan::Scan;
pub use socket::Socket;
pub use target::{Scheme, Target, TargetError};
pub use tls::{Tls, TlsError};
pub use typed::TypedError;
