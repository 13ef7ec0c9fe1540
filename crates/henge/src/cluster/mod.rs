//! A node among others: what the machines of `henge-cluster` leave to whoever runs them.

pub(crate) mod seal;
pub(crate) mod secret;
