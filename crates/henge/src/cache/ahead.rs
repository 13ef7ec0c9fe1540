//! Looking ahead over the shards: the memory that coming commands will read is asked for in time. Which lines those are a shard
//! knows; when to ask for whose is decided here. It changes nothing, and nothing depends on it.

use super::replicas::prefetch_replica;
use super::{Cache, Location};
use henge_engine::{Hint, Line};

/// The most keys that are looked ahead for.
pub const AHEAD: usize = 64;
/// Keys that take a step together, before as many commands run. More of them ask for more lines at once than a core waits for
/// (of groups of 8 a key cost 260 ns, of 3 165); with fewer the next step comes before the lines do.
const AHEAD_GROUP: usize = 3;
/// Bucket, record, neighbours, and one more for those whose bucket overflows, an eighth of all.
const AHEAD_STEPS: usize = 4;

/// How far looking ahead has come for some keys, in the order in which commands will run on them: has the memory on its way that
/// the commands will read, so that they wait for it together and not one by one, and while others run.
#[derive(Debug)]
pub struct LookAhead {
    hints: [Hint; AHEAD],
    /// In round `r` group `g` takes its step `r - g`.
    rounds: usize,
    /// What a round names, three lines at the most for a key. They are asked for at its end; see `Line`.
    lines: [[Line; 3]; AHEAD_GROUP * AHEAD_STEPS],
}

impl Default for LookAhead {
    fn default() -> Self {
        Self {
            hints: [Hint::Start; AHEAD],
            rounds: 0,
            lines: [[Line::NONE; 3]; AHEAD_GROUP * AHEAD_STEPS],
        }
    }
}

impl LookAhead {
    /// Begins with other keys.
    #[inline]
    pub fn begin(&mut self) {
        self.rounds = 0;
    }

    /// To be called before the command on the key of this number runs, always with the same keys, of which the first [`AHEAD`]
    /// count. It asks for what that still needs, if anything, and for what those after it need first.
    #[inline]
    pub fn before(&mut self, nth: usize, cache: &Cache, locations: &[Location]) {
        while self.rounds < nth / AHEAD_GROUP + AHEAD_STEPS {
            self.round(cache, locations);
        }
    }

    fn round(&mut self, cache: &Cache, locations: &[Location]) {
        let mut named = 0;
        // Of those that begin, which are one group.
        let (mut replicas, mut begun) = ([None; AHEAD_GROUP], 0);
        let count = locations.len().min(AHEAD);
        let begins = count.min(self.rounds * AHEAD_GROUP);
        let end = count.min((self.rounds + 1) * AHEAD_GROUP);
        self.hints[begins..end].fill(Hint::Start);
        let first = (self.rounds + 1).saturating_sub(AHEAD_STEPS) * AHEAD_GROUP;
        let keys = first.min(end)..end;
        self.rounds += 1;
        for (hint, at) in self.hints[keys.clone()].iter_mut().zip(&locations[keys]) {
            // Whoever holds a lock is reading there already.
            if !matches!(hint, Hint::Done)
                && let Some(seat) = cache.slot(at.partition).shard.try_lock()
            {
                if matches!(hint, Hint::Start)
                    && let Some(replica) = replicas.get_mut(begun)
                {
                    *replica = seat.replica(cache.place(at.partition));
                    begun += 1;
                }
                (*hint, self.lines[named]) = seat.ahead(at.partition, at.hash, *hint);
                named += 1;
            }
        }
        replicas.into_iter().flatten().for_each(prefetch_replica);
        for line in self.lines[..named].iter().flatten() {
            line.prefetch();
        }
    }
}

/// Looks ahead over the keys of one command, however many they are.
#[derive(Debug, Default)]
pub struct KeysAhead {
    locations: Vec<Location>,
    ahead: LookAhead,
}

impl KeysAhead {
    /// Where key `nth` of `count` lies, by `locate`; what it needs, and those after it need first, is asked for. They are to be
    /// asked for in order, from 0 on.
    #[inline]
    pub fn locate(
        &mut self,
        cache: &Cache,
        nth: usize,
        count: usize,
        locate: impl Fn(usize) -> Location,
    ) -> Location {
        let place = nth % AHEAD;
        if place == 0 {
            self.locations.clear();
            self.locations
                .extend((nth..count.min(nth + AHEAD)).map(locate));
            self.ahead.begin();
        }
        self.ahead.before(place, cache, &self.locations);
        self.locations[place]
    }
}
