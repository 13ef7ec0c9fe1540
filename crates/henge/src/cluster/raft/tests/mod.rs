//! Consensus on disks in temporary directories, over connections that a test cuts.

mod file;
mod three;
mod wires;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use henge_cluster::agreed::Command;
use henge_cluster::forming::{ClusterId, Who};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("henge-raft-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn name(instance: u64) -> String {
    format!("node{instance}")
}

fn address(instance: u64) -> String {
    format!("{}:8080", name(instance))
}

fn form() -> Command {
    Command::Form {
        cluster: ClusterId(7),
        founders: std::collections::BTreeSet::new(),
        replication: 1,
    }
}

fn start(instance: u64, incarnation: u64) -> Command {
    Command::Start {
        who: Who {
            name: name(instance),
            instance,
        },
        address: address(instance),
        incarnation,
        has_lost_memory: false,
        weight: 1,
        zone: None,
    }
}

fn set(name: &str, value: &str) -> Command {
    Command::Set {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        expected: None,
    }
}
