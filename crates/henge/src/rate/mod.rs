//! How often clients may ask, and for how much: buckets of tokens for each API key, for each address, and for the node. Each batch of
//! requests is held against them once. What a client is told who has asked too often is said by its protocol.
//!
//! ```text
//! bucket     of one who asks, shared by all threads     governor
//! allowance  what a thread has taken from it in advance
//! meter      the allowances that one connection spends from
//! ```

mod allowance;
mod bucket;
pub(crate) mod meter;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::HeaderValue;

pub(crate) use allowance::Allowances;
use bucket::{Buckets, PARTS, Subject};

use crate::config::{ByteSize, Config, RateLimitsConfig};
use crate::http::routes::{Lookup, RouteId};

/// Bytes are counted in tokens of so many: a bucket of single ones could not be filled faster than by one a nanosecond.
const TOKEN_BYTES: u32 = 1_024;

/// Whose requests are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    Key,
    Address,
    Node,
}

impl Scope {
    /// All of them, as they are numbered in what is counted.
    pub(crate) const ALL: [Self; 3] = [Self::Key, Self::Address, Self::Node];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Address => "address",
            Self::Node => "node",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    Requests,
    Bytes,
}

impl Resource {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
        }
    }
}

/// What holds for all of one scope.
#[derive(Debug)]
struct Limit {
    requests: Option<Buckets>,
    bytes: Option<Buckets>,
}

/// The limits that hold for a while.
#[derive(Debug)]
pub(crate) struct RateLimits {
    /// By the number of the scope.
    limits: [Option<Limit>; 3],
    burst: Duration,
    exempt_health: bool,
    exempt_metrics: bool,
    /// What they are, as `RateLimit-Policy` says it.
    policy: HeaderValue,
}

impl RateLimits {
    /// Those of a configuration; none where it limits nothing.
    fn of(config: &RateLimitsConfig, threads: usize, now: Instant) -> Option<Self> {
        let rates: [(Option<u64>, Option<ByteSize>); 3] = [
            (config.key_requests_per_second, config.key_bytes_per_second),
            (
                config.address_requests_per_second,
                config.address_bytes_per_second,
            ),
            (
                config.node_requests_per_second,
                config.node_bytes_per_second,
            ),
        ];
        if rates.iter().all(|rates| *rates == (None, None)) {
            return None;
        }
        let burst = Duration::from_millis(config.burst_ms);
        let buckets = |per_second| Buckets::new(per_second, burst, threads, now);
        let limits = rates.map(|(requests, bytes)| {
            let tokens = |bytes: ByteSize| bytes.as_u64() / u64::from(TOKEN_BYTES);
            (requests.is_some() || bytes.is_some()).then(|| Limit {
                requests: requests.map(buckets),
                bytes: bytes.map(|bytes| buckets(tokens(bytes))),
            })
        });
        Some(Self {
            limits,
            burst,
            exempt_health: config.exempt_health,
            exempt_metrics: config.exempt_metrics,
            policy: policy(&rates, burst),
        })
    }

    fn limit(&self, scope: Scope) -> Option<&Limit> {
        self.limits[scope as usize].as_ref()
    }

    fn of_subject(&self, subject: &Subject) -> Option<&Limit> {
        self.limit(match subject {
            Subject::Key(_) => Scope::Key,
            Subject::Address(_) => Scope::Address,
            Subject::Node => Scope::Node,
        })
    }

    /// What they are, as `RateLimit-Policy` says it.
    pub(crate) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Whether a route is answered whatever was asked before: so that who looks after the node can, however busy it is.
    pub(crate) fn exempts(&self, lookup: &Lookup) -> bool {
        let Lookup::Found(route) = lookup else {
            return false;
        };
        match route.id {
            RouteId::Health | RouteId::Ready => self.exempt_health,
            RouteId::Metrics | RouteId::MetricsJson => self.exempt_metrics,
            _ => false,
        }
    }
}

/// As draft-ietf-httpapi-ratelimit-headers-10 has it: for each a quota, and the seconds in which it may be used up.
fn policy(rates: &[(Option<u64>, Option<ByteSize>); 3], burst: Duration) -> HeaderValue {
    let window = burst.as_millis().div_ceil(1_000).max(1);
    let mut items = Vec::new();
    for (scope, (requests, bytes)) in Scope::ALL.iter().zip(rates) {
        let name = scope.name();
        if let Some(requests) = requests {
            let quota = u128::from(*requests) * window;
            items.push(format!("\"{name}\";q={quota};w={window}"));
        }
        if let Some(bytes) = bytes {
            let quota = u128::from(bytes.as_u64()) * window;
            items.push(format!(
                "\"{name}-bytes\";q={quota};w={window};qu=\"content-bytes\""
            ));
        }
    }
    HeaderValue::try_from(items.join(", ")).expect("it has names and digits only")
}

/// The limits that hold now.
#[derive(Debug)]
pub(crate) struct Rates {
    current: ArcSwapOption<RateLimits>,
    /// Another number whenever others hold.
    generation: AtomicU64,
    threads: usize,
}

impl Rates {
    pub(crate) fn new(config: &Config, threads: usize) -> Self {
        let limits = RateLimits::of(&config.rate_limits, threads, Instant::now());
        Self {
            current: ArcSwapOption::new(limits.map(Arc::new)),
            generation: AtomicU64::new(1),
            threads,
        }
    }

    /// Has others hold from now on; the buckets are full then.
    pub(crate) fn set(&self, config: &Config) {
        let limits = RateLimits::of(&config.rate_limits, self.threads, Instant::now());
        self.current.store(limits.map(Arc::new));
        self.generation.fetch_add(1, Ordering::Release);
    }

    #[inline]
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The limits that hold now, if there are any.
    pub(crate) fn current(&self) -> Option<Arc<RateLimits>> {
        self.current.load_full()
    }

    /// Drops the buckets of clients that have not asked for as long as theirs take to fill. Gives way after each few.
    pub(crate) async fn drop_idle(&self, now: Instant) {
        let Some(limits) = self.current() else {
            return;
        };
        for limit in limits.limits.iter().flatten() {
            for buckets in [&limit.requests, &limit.bytes].into_iter().flatten() {
                for part in 0..PARTS {
                    buckets.drop_full(part, now);
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
