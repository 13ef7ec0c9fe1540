//! A map of few entries, in their order, that lies where its owner does: a replica is asked about a handful of others at each step,
//! and a map elsewhere in memory is one more place to wait for. It is no map for more than some tens.

use smallvec::SmallVec;

/// Entries that lie in place: other replicas of a partition, mostly.
const IN_PLACE: usize = 3;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Few<K, V>(SmallVec<[(K, V); IN_PLACE]>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<K: Copy + Ord, V> Few<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let found = self.0.iter_mut().find(|(known, _)| *known == key);
        found.map(|(_, value)| value)
    }

    /// That of a key, which is there from now on.
    pub(crate) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = self.0.partition_point(|(known, _)| *known < key);
        if self.0.get(place).is_none_or(|(known, _)| *known != key) {
            self.0.insert(place, (key, V::default()));
        }
        &mut self.0[place].1
    }

    pub(crate) fn remove(&mut self, key: K) {
        self.0.retain(|(known, _)| *known != key);
    }

    pub(crate) fn retain(&mut self, keeps: impl Fn(K) -> bool) {
        self.0.retain(|(known, _)| keeps(*known));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }
}

impl<K: Copy + Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut all: SmallVec<_> = entries.into_iter().collect();
        all.sort_by_key(|(key, _)| *key);
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_their_order() {
        let mut few: Few<u8, u8> = [(7, 1), (3, 2)].into_iter().collect();
        *few.entry(5) = 3;
        *few.entry(3) += 10;
        assert_eq!(few.iter().collect::<Vec<_>>(), [(3, &12), (5, &3), (7, &1)]);
        few.remove(5);
        few.retain(|key| key != 7);
        assert_eq!(few.get(3), Some(&12));
        assert_eq!(few.get(5), None);
        assert_eq!(few.get_mut(7), None);
    }
}
