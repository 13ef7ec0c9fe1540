//! A node of Henge, a distributed cache that may forget a key and never lies about one.

pub mod cli;
pub mod config;
