//! The client against servers that do what a test tells them to. One binary, so that it is linked once.

mod cluster;
mod encryption;
mod failures;
mod manner;
mod pipeline;
mod pool;
mod real_cluster;
mod server;
