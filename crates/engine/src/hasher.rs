//! The hash of keys: foldhash with a seed, so that nobody outside can make keys that share a bucket. Never on a wire and
//! never on a disk.

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use std::hash::Hasher;

/// Hashes keys under one seed; the shards of a cache share it.
#[derive(Clone)]
pub struct KeyHasher {
    seed: u64,
    shared: SharedSeed,
}

impl KeyHasher {
    /// A hasher of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            shared: SharedSeed::from_u64(seed.rotate_left(32) ^ 0x6865_6e67_6500_0001),
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(key);
        // Foldhash leaves the length of plain bytes to its caller.
        hasher.write_u32(key.len() as u32);
        hasher.finish()
    }
}
