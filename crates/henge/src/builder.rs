//! How a program starts a node inside itself: settings by their names, one after the other, and all that is wrong said at the start.

use std::path::Path;

use crate::config::{Config, ConfigError, DirectoryPath};
use crate::node::{Node, StartError};

/// A node that is to be started: see [`Node::builder`].
///
/// It begins with the defaults, but for two: it listens on the loopback alone, at any free port, and keeps everything in memory.
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
pub struct NodeBuilder {
    config: Config,
    problems: Vec<String>,
}

impl NodeBuilder {
    pub(crate) fn new() -> Self {
        let builder = Self {
            config: Config::default(),
            problems: Vec::new(),
        };
        builder
            .set("server.listen", "127.0.0.1:0")
            .set("persistence.enabled", "false")
    }

    /// Where to listen: `127.0.0.1:0`, `:8080`, `[::1]:8080`.
    pub fn listen(self, address: &str) -> Self {
        self.set("server.listen", address)
    }

    /// What is there is kept in a directory of the node's own below this one, and is there again at the next start.
    pub fn persist_in(mut self, directory: impl AsRef<Path>) -> Self {
        self.config.persistence.enabled = true;
        self.config.persistence.dir = DirectoryPath::new(directory.as_ref());
        self
    }

    /// The memory that the cache may take, all included, such as `64MiB`.
    pub fn max_size(self, size: &str) -> Self {
        self.set("cache.max_size_bytes", size)
    }

    /// Addresses of members of a cluster to join, or of nodes to form one with, such as `http://a:8080`.
    pub fn peers(self, addresses: &[&str]) -> Self {
        self.set("cluster.peers", &addresses.join(","))
    }

    /// Any setting by its name, as a flag has it: `set("cache.policy", "s3fifo")`. What is wrong is said by [`start`](Self::start).
    pub fn set(mut self, name: &str, value: &str) -> Self {
        if let Err(error) = self.config.set(name, value) {
            self.problems.push(error.to_string());
        }
        self
    }

    /// Starts the node, and waits until it has loaded what is on its disk. It takes no part in the program's own runtime: its threads
    /// are its own, and end with [`Node::shutdown`] or when it is dropped. It neither installs signal handlers nor a log: what it says
    /// goes to the program's `tracing` subscriber.
    ///
    /// # Errors
    /// A setting was wrong, or the node could not start: nothing of it is left running.
    pub fn start(self) -> Result<Node, StartError> {
        ConfigError::of(self.problems).map_err(StartError::Config)?;
        let node = Node::start(self.config)?;
        node.wait_until_ready()?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_at_the_start() {
        let builder = Node::builder().set("cache.colour", "red").max_size("none");
        let Err(error) = builder.start() else {
            panic!("it starts");
        };
        let said = error.to_string();
        assert!(said.contains("cache.colour"), "{said}");
        assert!(said.contains("cache.max_size_bytes"), "{said}");
    }
}
