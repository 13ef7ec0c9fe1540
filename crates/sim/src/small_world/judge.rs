//! What answers at QUORUM and ALL may show: a miss, or what is no older than anything that was known when the question was
//! asked. It knows nothing of replicas.

use henge_cluster::replica::Key;
use henge_cluster::testing::map::Request;
use henge_cluster::topology::Epoch;
use henge_wire::Version;
use std::collections::BTreeMap;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Judge {
    /// Of each key, the newest version that anybody was told of.
    known: BTreeMap<Key, Version>,
    /// All that is older was to be forgotten, and that is done.
    flushed: Version,
    /// Of each key, the newest version that was known when a delete was asked that is acknowledged by now.
    buried: BTreeMap<Key, Version>,
    /// What each version is known to hold.
    values: BTreeMap<(Key, Version), Option<u64>>,
}

/// A request that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    request: Request,
    known: Version,
    buried: Version,
}

impl Judge {
    /// Somebody asks.
    pub(crate) fn asked(&self, request: &Request) -> Asked {
        let of = |versions: &BTreeMap<Key, Version>| {
            let version = versions.get(request.key());
            version.copied().unwrap_or_default()
        };
        Asked {
            request: request.clone(),
            known: of(&self.known).max(self.flushed),
            buried: of(&self.buried),
        }
    }

    /// All that was written in terms before this one was to be forgotten, and whoever asked for that is told that it is.
    pub(crate) fn flushed(&mut self, term: Epoch) {
        self.flushed = self.flushed.max(Version::new(term, 0));
    }

    /// An answer; an error says why it is a lie.
    pub(crate) fn answered(
        &mut self,
        asked: &Asked,
        version: Option<Version>,
        value: Option<u64>,
    ) -> Result<(), String> {
        let key = asked.request.key();
        let Some(version) = version else {
            if matches!(asked.request, Request::Delete(_)) {
                let buried = self.buried.entry(key.clone()).or_default();
                *buried = (*buried).max(asked.known);
            }
            return Ok(());
        };
        let is_miss = value.is_none() && matches!(asked.request, Request::Get(_));
        if !is_miss && version < asked.known {
            return Err(format!(
                "{:?} shows {version}, and {} was known",
                asked.request, asked.known
            ));
        }
        if value.is_some() && version <= asked.buried {
            return Err(format!(
                "{:?} shows {version}, and {} was deleted",
                asked.request, asked.buried
            ));
        }
        let held = self.values.entry((key.clone(), version)).or_insert(value);
        if *held != value {
            return Err(format!(
                "{version} of {key:?} is {value:?}, and was {held:?}"
            ));
        }
        let known = self.known.entry(key.clone()).or_default();
        *known = (*known).max(version);
        Ok(())
    }
}
