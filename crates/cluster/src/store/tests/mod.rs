//! The engine as the table of a replica: against what a naive map of all versions says, and three replicas over three shards.

mod alone;
mod directed;
mod filled;
mod model;
mod three;

use super::disk::{Recovered, ShardSettings, Snapshot, take_log};
use super::*;
use crate::testing::random::Random;
use henge_engine::SEGMENT_BYTES;
use henge_wire::Version;

/// A seed, which is printed if the test fails.
struct Printed(u64);

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

/// A shard with so many segments and items.
fn settings(segments: u64, items: u64) -> ShardSettings {
    let mut settings = ShardSettings::new(Room::default(), 7);
    settings.room = Room {
        bytes: settings.empty_bytes() + segments * SEGMENT_BYTES as u64 + 32 * 1024,
        items,
    };
    settings
}

/// What a node has on its disk.
#[derive(Clone, Default)]
struct Files {
    snapshot: Option<Vec<u8>>,
    log: Vec<u8>,
    /// The log is synced up to there.
    synced: usize,
    snapshots: u64,
}

impl Files {
    /// Writes what is in the journal.
    fn write(&mut self, shard: &mut Shard) {
        self.log.extend(take_log(shard));
    }

    fn sync(&mut self) {
        self.synced = self.log.len();
    }

    /// Makes a snapshot while `meanwhile` is done to the shard.
    fn snapshot(&mut self, shard: &mut Shard, mut meanwhile: impl FnMut(&mut Shard)) {
        self.write(shard);
        let from = self.log.len();
        self.snapshots += 1;
        let mut snapshot = Snapshot::begin(self.snapshots);
        while !snapshot.step(shard) {
            meanwhile(shard);
        }
        self.write(shard);
        self.sync();
        self.snapshot = Some(snapshot.finish());
        self.log.drain(..from);
        self.synced -= from;
    }

    /// Loses all but so many bytes of the log.
    fn lose(&mut self, kept: usize) {
        self.log.truncate(kept);
    }

    fn recover(&mut self, settings: &ShardSettings, now_ms: u64) -> Recovered {
        let recovered = settings.recover(now_ms, self.snapshot.as_deref(), &self.log);
        let recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
        self.log.truncate(recovered.log_bytes);
        self.synced = self.log.len();
        recovered
    }
}
