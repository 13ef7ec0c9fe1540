//! The buckets of tokens that all data threads share, one for each who is limited, and all of one size. Tokens are taken from them
//! in advance and for many requests together; how they are spent is not known here.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Who is limited.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Subject {
    /// All clients of the node.
    Node,
    /// Those of one address, or of one network.
    Address(IpAddr),
    /// Those that have shown the API key of this name.
    Key(Arc<str>),
}

/// Buckets lie behind so many locks, so that to drop those of idle clients holds none for long.
pub(super) const PARTS: usize = 64;
/// All data threads together take at most this part of a bucket that they do not need at once.
pub(super) const IN_ADVANCE: u32 = 16;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time of the request that is looked at, which has been read already.
#[derive(Clone, Copy, Debug)]
struct Given;

impl Given {
    fn at<T>(now: Instant, look: impl FnOnce() -> T) -> T {
        NOW.set(Some(now));
        look()
    }
}

impl Clock for Given {
    type Instant = Instant;

    fn now(&self) -> Instant {
        NOW.get().unwrap_or_else(Instant::now)
    }
}

type Part = RateLimiter<Subject, HashMapStateStore<Subject>, Given, StateInformationMiddleware>;

/// Tokens that were taken from a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub(super) tokens: u32,
    /// What is left there.
    pub(super) left: u32,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Buckets {
    parts: Box<[Part]>,
    hasher: RandomState,
    quota: Quota,
    /// As much is taken at once, where there is as much.
    chunk: u32,
}

impl Buckets {
    /// Buckets that fill with so many tokens a second and have room for those of `burst`, for this many threads.
    pub(super) fn new(per_second: u64, burst: Duration, threads: usize, now: Instant) -> Self {
        let whole = |number: u64| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
        };
        let room = u128::from(per_second) * burst.as_millis() / 1_000;
        let room = whole(u64::try_from(room).unwrap_or(u64::MAX));
        let quota = Quota::per_second(whole(per_second)).allow_burst(room);
        let part = |_| {
            let state = HashMapStateStore::new(HashMap::new());
            Given::at(now, || Part::new(quota, state, Given))
        };
        let chunk = u64::from(room.get()) / (u64::from(IN_ADVANCE) * threads.max(1) as u64);
        Self {
            parts: (0..PARTS).map(part).collect(),
            hasher: RandomState::new(),
            quota,
            chunk: whole(chunk).get(),
        }
    }

    /// Takes the tokens that are missing, and some in advance; or some of those that are missing. Where there is none, says how long
    /// it takes until there is one.
    pub(super) fn take(
        &self,
        subject: &Subject,
        missing: u32,
        now: Instant,
    ) -> Result<Taken, Duration> {
        let part = &self.parts[self.hasher.hash_one(subject) as usize % PARTS];
        let mut tokens = missing.max(self.chunk).min(self.room());
        loop {
            let asked = NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN);
            let answer = Given::at(now, || part.check_key_n(subject, asked));
            match answer {
                Ok(Ok(snapshot)) => {
                    return Ok(Taken {
                        tokens: asked.get(),
                        left: snapshot.remaining_burst_capacity(),
                    });
                }
                Ok(Err(not_until)) if asked.get() == 1 => return Err(not_until.wait_time_from(now)),
                // More than there is room for was not asked.
                Ok(Err(_)) | Err(_) if tokens > missing => tokens = missing,
                Ok(Err(_)) | Err(_) => tokens = asked.get() / 2,
            }
        }
    }

    /// How long it takes until there is another token.
    pub(super) fn interval(&self) -> Duration {
        self.quota.replenish_interval()
    }

    /// How many tokens come in this time.
    pub(super) fn filled_in(&self, time: Duration) -> i64 {
        let tokens = time.as_nanos() / self.interval().as_nanos().max(1);
        i64::try_from(tokens).unwrap_or(i64::MAX)
    }

    /// How many tokens one has room for.
    pub(super) fn room(&self) -> u32 {
        self.quota.burst_size().get()
    }

    /// Drops the buckets that are full again, which is as good as none: a part of them at a time, of [`PARTS`].
    pub(super) fn drop_full(&self, part: usize, now: Instant) {
        let part = &self.parts[part];
        Given::at(now, || part.retain_recent());
        part.shrink_to_fit();
    }

    /// How many buckets there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(RateLimiter::len).sum()
    }
}
