//! Who may do what, on every protocol alike: API keys and roles, and what happens where there are none. A connection has a
//! [`Caller`]; before each batch of requests it looks whether keys have changed, and then each command or route is held
//! against what its key may do. What a client is told about a "no", and how a key comes with a request, is its protocol's.

pub(crate) mod agreed;
pub(crate) mod caller;
pub(crate) mod entry;
pub(crate) mod file;
pub(crate) mod hash;
pub(crate) mod permission;
pub(crate) mod prefix;
pub(crate) mod ring;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use henge_cluster::agreed::Setting;
use parking_lot::Mutex;

use agreed::Agreed;
use file::KeyFile;
use ring::{Ring, Strangers};

pub use file::KeyFileError;

/// The keys of a node, as they are now.
#[derive(Debug)]
pub(crate) struct Access {
    ring: ArcSwap<Ring>,
    /// That of the ring, apart from it: who has seen it needs no more.
    generation: AtomicU64,
    parts: Mutex<Parts>,
}

/// What a ring is made of.
#[derive(Clone, Debug)]
struct Parts {
    protected_mode: bool,
    file: Option<KeyFile>,
    agreed: Agreed,
    /// What that was read from.
    settings: BTreeMap<String, Setting>,
    /// Whether it is known what the cluster has agreed on. Until then there may be keys, so that nobody from elsewhere is served for
    /// want of them.
    has_heard: bool,
}

impl Parts {
    /// The ring of these parts, of which nobody is warned.
    fn ring_unsaid(&self, generation: u64) -> Ring {
        Ring::of(
            generation,
            self.strangers(),
            self.file.as_ref(),
            &self.agreed,
        )
    }

    fn ring(&self, generation: u64) -> Ring {
        let ring = self.ring_unsaid(generation);
        if ring.is_empty() && ring.strangers == Strangers::Served {
            tracing::warn!(
                "there is no API key, and security.protected_mode is false: whoever reaches the node may do anything"
            );
        }
        if !ring.can_be_administered() {
            tracing::warn!(
                "no API key that holds for good may administer the node: other keys are made in the key file, and read at SIGHUP or a restart"
            );
        }
        ring
    }

    fn strangers(&self) -> Strangers {
        match (self.protected_mode, self.has_heard) {
            (true, _) => Strangers::Refused,
            (false, false) => Strangers::Wait,
            (false, true) => Strangers::Served,
        }
    }
}

impl Access {
    /// Of a node that has heard of no cluster yet.
    pub(crate) fn new(protected_mode: bool, file: Option<KeyFile>) -> Self {
        let parts = Parts {
            protected_mode,
            file,
            agreed: Agreed::default(),
            settings: BTreeMap::new(),
            has_heard: false,
        };
        let ring = parts.ring(1);
        Self {
            generation: AtomicU64::new(ring.generation),
            ring: ArcSwap::from_pointee(ring),
            parts: Mutex::new(parts),
        }
    }

    /// The number of the ring that holds.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The ring that holds.
    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Takes over what a configuration says.
    pub(crate) fn set_file(&self, protected_mode: bool, file: Option<KeyFile>) {
        self.change(|parts| {
            (parts.protected_mode, parts.file) = (protected_mode, file);
        });
    }

    /// Takes over what is agreed on, or was in the node's last life.
    pub(crate) fn set_agreed(&self, settings: &BTreeMap<String, Setting>) {
        let is_access = |(name, _): &(&String, &Setting)| agreed::is_access(name);
        let is_same = |parts: &Parts| {
            parts.has_heard && settings.iter().filter(is_access).eq(&parts.settings)
        };
        if !is_same(&self.parts.lock()) {
            let settings = settings.iter().filter(is_access);
            let settings = settings.map(|(name, setting)| (name.clone(), setting.clone()));
            let settings = settings.collect();
            self.change(|parts| {
                parts.agreed = Agreed::of(&settings);
                parts.settings = settings;
                parts.has_heard = true;
            });
        }
    }

    /// What the ring would be if the cluster agreed on this as well.
    pub(crate) fn ring_with(&self, change: impl FnOnce(&mut Agreed)) -> Ring {
        self.imagined(|parts| change(&mut parts.agreed))
    }

    /// Whether nobody could administer the node any more with this key file in place of its own, where somebody can now.
    pub(crate) fn would_lock_out(&self, protected_mode: bool, file: Option<&KeyFile>) -> bool {
        let next = self.imagined(|parts| {
            (parts.protected_mode, parts.file) = (protected_mode, file.cloned());
        });
        self.ring.load().can_be_administered() && !next.can_be_administered()
    }

    /// What the ring would be after a change.
    fn imagined(&self, change: impl FnOnce(&mut Parts)) -> Ring {
        let mut parts = self.parts.lock().clone();
        change(&mut parts);
        parts.ring_unsaid(0)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock();
        change(&mut parts);
        let next = self.ring.load().generation + 1;
        let ring = parts.ring(next);
        // Under the lock, so that of two changes the later one stays; the number last, so that who sees it finds its ring.
        self.ring.store(Arc::new(ring));
        self.generation.store(next, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::entry::KeyEntry;
    use super::hash::NewKey;
    use super::*;

    /// A key of a file: its name, itself, its permissions, its prefixes, and when it expires.
    pub(crate) type Line<'a> = (
        &'a str,
        &'a NewKey,
        &'a [&'a str],
        &'a [&'a str],
        Option<&'a str>,
    );

    /// A file of these keys.
    pub(crate) fn file(keys: &[Line<'_>]) -> KeyFile {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let keys = keys
            .iter()
            .map(|(name, key, permissions, prefixes, expires)| {
                let entry = KeyEntry {
                    hash: Some(key.hash.to_string()),
                    permissions: names(permissions),
                    prefixes: names(prefixes),
                    expires: expires.map(str::to_owned),
                    ..KeyEntry::default()
                };
                ((*name).to_owned(), entry.read().expect("it is right"))
            });
        KeyFile {
            keys: keys.collect(),
            ..KeyFile::default()
        }
    }

    /// Of a node with that file.
    pub(crate) fn access(protected_mode: bool, file: Option<KeyFile>) -> Access {
        let access = Access::new(protected_mode, file);
        access.set_agreed(&BTreeMap::new());
        access
    }
}
