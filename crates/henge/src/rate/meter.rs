//! The meter of one connection: whose allowances it spends from, and whether there is something left in all of them. It is looked at
//! once for each batch of requests; where nothing is limited that is one comparison.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::allowance::{Allowance, Allowances};
use super::bucket::Subject;
use super::{RateLimits, Rates, Resource, Scope};
use crate::access::caller::Caller;
use crate::access::permission::Permission;
use crate::access::ring::Key;
use crate::net::addresses;

/// Why not all requests of a batch are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exceeded {
    pub(crate) scope: Scope,
    pub(crate) resource: Resource,
    /// When there is room for another.
    pub(crate) wait: Duration,
}

impl Exceeded {
    /// The milliseconds to wait, one at least.
    pub(crate) fn wait_ms(&self) -> u64 {
        let ms = self.wait.as_nanos().div_ceil(1_000_000).max(1);
        u64::try_from(ms).unwrap_or(u64::MAX)
    }

    /// The seconds to wait, one at least.
    pub(crate) fn wait_seconds(&self) -> u64 {
        self.wait_ms().div_ceil(1_000)
    }

    /// Which limit it is, as `RateLimit-Policy` names it.
    fn policy(&self) -> String {
        let of = match self.resource {
            Resource::Requests => "",
            Resource::Bytes => "-bytes",
        };
        format!("{}{of}", self.scope.name())
    }
}

/// How many requests of a batch are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    pub(crate) count: usize,
    /// Why it is not all of them.
    pub(crate) exceeded: Option<Exceeded>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Where the connection comes from; none for one whose requests have been counted elsewhere.
    address: Option<IpAddr>,
    generation: u64,
    limits: Option<Arc<RateLimits>>,
    /// By the number of the scope.
    allowances: [Option<Rc<Allowance>>; 3],
    /// Whose allowance that of the key is.
    key: Option<Arc<Key>>,
    /// Whether it is held against the node's as well.
    uses_up_the_nodes: bool,
}

impl Meter {
    /// Of a connection from this address.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::new(Some(addresses::counted(address)), 0)
    }

    /// Of another node: what its clients ask is counted where they have asked it.
    pub(crate) fn of_node() -> Self {
        Self::new(None, u64::MAX)
    }

    fn new(address: Option<IpAddr>, generation: u64) -> Self {
        Self {
            address,
            generation,
            limits: None,
            allowances: [None, None, None],
            key: None,
            uses_up_the_nodes: false,
        }
    }

    /// Takes notice of other limits. Says which hold, if any do.
    #[inline]
    pub(crate) fn look(
        &mut self,
        rates: &Rates,
        allowances: &Allowances,
        now: Instant,
    ) -> Option<&RateLimits> {
        if self.generation != rates.generation() {
            self.look_again(rates, allowances, now);
        }
        self.limits.as_deref()
    }

    /// Says how many of so many requests may be served. Nothing is spent.
    #[inline]
    pub(crate) fn grant(
        &mut self,
        wanted: usize,
        rates: &Rates,
        allowances: &Allowances,
        caller: &Caller,
        now: Instant,
    ) -> Grant {
        if self.look(rates, allowances, now).is_some() {
            return self.grant_limited(wanted, allowances, caller, now);
        }
        Grant {
            count: wanted,
            exceeded: None,
        }
    }

    #[cold]
    fn look_again(&mut self, rates: &Rates, allowances: &Allowances, now: Instant) {
        let Some(address) = self.address else {
            return;
        };
        self.generation = rates.generation();
        self.limits = rates.current();
        self.key = None;
        self.allowances = [None, None, None];
        allowances.hold_for(self.generation);
        let Some(limits) = &self.limits else {
            return;
        };
        for (scope, subject) in [
            (Scope::Address, Subject::Address(address)),
            (Scope::Node, Subject::Node),
        ] {
            if limits.limit(scope).is_some() {
                self.allowances[scope as usize] = Some(allowances.of(limits, &subject, now));
            }
        }
    }

    fn grant_limited(
        &mut self,
        wanted: usize,
        allowances: &Allowances,
        caller: &Caller,
        now: Instant,
    ) -> Grant {
        self.follow(allowances, caller, now);
        let mut grant = Grant {
            count: wanted,
            exceeded: None,
        };
        let Some(limits) = &self.limits else {
            return grant;
        };
        for (scope, allowance) in self.paying() {
            let Some(limit) = limits.limit(scope) else {
                continue;
            };
            let mut bound = |count: i64, resource, wait: Duration| {
                let count = usize::try_from(count).unwrap_or(0);
                if count < grant.count
                    || count == 0 && grant.exceeded.is_none_or(|one| one.wait < wait)
                {
                    grant.count = count;
                    grant.exceeded = Some(Exceeded {
                        scope,
                        resource,
                        wait,
                    });
                }
            };
            let subject = &allowance.subject;
            if let Some(buckets) = &limit.requests {
                let balance = &allowance.requests;
                let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
                let there = balance.have(wanted, buckets, subject, now);
                if there < wanted {
                    bound(there, Resource::Requests, balance.wait(now));
                }
            }
            if let Some(buckets) = &limit.bytes {
                let balance = &allowance.bytes;
                // How many it will be is known when it is done.
                if balance.have(1, buckets, subject, now) <= 0 {
                    bound(0, Resource::Bytes, balance.wait(now));
                }
            }
        }
        grant
    }

    /// Takes notice of who asks now: whose allowances a request is spent from.
    #[inline]
    fn follow(&mut self, allowances: &Allowances, caller: &Caller, now: Instant) {
        let Some(limits) = &self.limits else {
            return;
        };
        let key = caller.key();
        if self.key.as_ref().map(Arc::as_ptr) != key.map(Arc::as_ptr) {
            self.key = key.cloned();
            self.allowances[Scope::Key as usize] = match key {
                Some(key) if limits.limit(Scope::Key).is_some() => {
                    let subject = Subject::Key(key.name.as_str().into());
                    Some(allowances.of(limits, &subject, now))
                }
                _ => None,
            };
        }
        // Strangers do not use up what the node has for all, and who may change its limits is not kept out by them.
        let administers = key.is_some_and(|key| Permission::Admin.is_met_by(key.permissions));
        self.uses_up_the_nodes = !caller.is_stranger() && !administers;
    }

    /// Whose allowances the requests that were granted last are spent from.
    fn paying(&self) -> impl Iterator<Item = (Scope, &Rc<Allowance>)> {
        let all = Scope::ALL.into_iter().zip(&self.allowances);
        all.filter_map(|(scope, allowance)| Some((scope, allowance.as_ref()?)))
            .filter(|(scope, _)| *scope != Scope::Node || self.uses_up_the_nodes)
    }

    /// Whether anything is limited.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.limits.is_some()
    }

    /// The limits that hold, if any do.
    #[inline]
    pub(crate) fn limits(&self) -> Option<&RateLimits> {
        self.limits.as_deref()
    }

    /// Spends what was asked for, at the expense of who it was granted to.
    pub(crate) fn spend(&self, requests: u64, bytes: u64) {
        for (_, allowance) in self.paying() {
            allowance.requests.spend(requests);
            allowance.bytes.spend(bytes);
        }
    }

    /// Spends bytes of what was asked for before.
    #[inline]
    pub(crate) fn spend_bytes(&self, bytes: u64) {
        if self.is_on() {
            self.spend(0, bytes);
        }
    }

    /// `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 has it: of the limit that is nearest, how many requests are left.
    pub(crate) fn left(&self, exceeded: Option<Exceeded>) -> Option<HeaderValue> {
        let limits = self.limits.as_deref()?;
        let text = if let Some(exceeded) = exceeded {
            format!(
                "\"{}\";r=0;t={}",
                exceeded.policy(),
                exceeded.wait_seconds()
            )
        } else {
            let known = |(scope, allowance): (Scope, &Rc<Allowance>)| {
                let buckets = limits.limit(scope)?.requests.as_ref()?;
                Some((allowance.requests.known(buckets.room()), scope))
            };
            let (left, scope) = self.paying().filter_map(known).min_by_key(|one| one.0)?;
            format!("\"{}\";r={left}", scope.name())
        };
        Some(HeaderValue::try_from(text).expect("it has names and digits only"))
    }
}
