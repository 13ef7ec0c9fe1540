//! Tests of a whole node from outside, over its port. One binary, so that it is linked once.

mod cli_bench;
mod cli_client;
mod client;
mod cluster;
mod cluster_pages;
mod disk_used;
mod durability;
mod eviction;
mod hostile;
mod http_api;
mod keyspace;
mod life;
mod log_failure;
mod observe;
mod random;
mod raw;
mod readme;
mod real_clients;
mod refusals;
mod resp_clients;
mod resp_command;
mod resp_hostile;
mod resp_reply;
mod resp_server;
mod side_by_side;
mod tools;
