//! What the nodes agree on. Pure: it knows no clock, file, socket, thread or lock, and decides nothing by chance; time and what
//! others say come in as arguments, and so do seeds where it draws among the members.

pub mod agreed;
#[cfg(any(test, feature = "bugs"))]
pub mod bugs;
pub mod carrier;
mod few;
pub mod forming;
pub mod gossip;
pub mod greeting;
pub mod history;
pub mod replica;
pub mod ring;
pub mod seal;
pub mod secret;
pub mod store;
#[cfg(any(test, feature = "bugs"))]
pub mod testing;
pub mod topology;
