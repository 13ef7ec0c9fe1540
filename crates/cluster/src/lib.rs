//! What the nodes agree on. Pure: it knows no clock, file, socket, thread or lock, and decides nothing by chance; time and what
//! others say come in as arguments.

pub mod ring;
pub mod topology;
