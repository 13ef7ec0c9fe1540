//! A part of a state with its hash. States share the parts in which they do not differ, and a part is hashed once, when it is
//! made, and not with every state that it is in.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Any; that it is fixed makes the number of states, and the traces, the same in each run.
const SEED: u64 = 0;

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Sealed<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    digest: u64,
    value: T,
}

impl<T: Hash> Sealed<T> {
    /// Hashes it.
    pub fn new(value: T) -> Self {
        let digest = digest(&value);
        Self(Arc::new(Inner { digest, value }))
    }
}

impl<T> Sealed<T> {
    /// Its hash.
    pub fn digest(&self) -> u64 {
        self.0.digest
    }
}

impl<T> Deref for Sealed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PartialEq> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.digest == other.0.digest && self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Sealed<T> {}

impl<T> Hash for Sealed<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.digest);
    }
}

/// The hash of something.
pub fn digest(value: &impl Hash) -> u64 {
    foldhash::quality::FixedState::with_seed(SEED).hash_one(value)
}
