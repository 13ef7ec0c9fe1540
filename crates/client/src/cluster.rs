//! The servers that a client knows: the members of a cluster with a pool for each, who owns which slot, how each of them does, and
//! when to ask for the map again. It runs nothing by itself: who has a request asks where it goes, says how that went, and is told
//! when the map is due. A server that knows of no cluster is the only member, and is never asked again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use henge_wire::{SLOTS, Slot};
use tokio::time::Instant;

use crate::balance::{Load, choose};
use crate::map::{MAX_MEMBERS, Map, NOBODY, Told};
use crate::pool::Pool;
use crate::{Error, Settings, Target};

/// The least time from one question for the map to the next. Each `MOVED` mends its slot by itself, so the map is asked for when many
/// slots have moved, and those move for longer than this.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How old a map may grow. A Henge node forwards what belongs elsewhere, and does not say so on every connection: the
/// client works with an old map, only at a greater cost.
const LONGEST_INTERVAL: Duration = Duration::from_mins(1);

/// The most that a request waits for the map that is asked for beside it.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);

/// How many members are asked for the map at the most, one after the other.
const MAX_ASKED: usize = 4;

/// Where the requests of a client go.
pub(crate) struct Cluster {
    /// What the client was given, where it begins again if nobody else is left.
    seeds: Vec<Target>,
    settings: Settings,
    pool_size: usize,
    began: Instant,
    random: AtomicU64,
    /// Locked only to look something up, or to change it, and never across an await.
    routes: RwLock<Routes>,
    freshness: Mutex<Freshness>,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pool: Pool,
    /// When its cluster began, which is what the times of its load count from.
    began: Instant,
    load: Mutex<Load>,
}

#[derive(Default)]
struct Routes {
    members: Vec<Arc<Member>>,
    /// For each member whether it should get what any may have. Others get it if there is none of these: members that own
    /// nothing, such as the replicas of Redis, and what the client was given, which may be the same servers by other names.
    is_preferred: Vec<bool>,
    /// For each slot the place of its owner, or [`NOBODY`]. Empty while there is no map.
    owners: Box<[u16]>,
}

struct Freshness {
    asked: Instant,
    has_map: bool,
    is_stale: bool,
    is_asking: bool,
}

impl Cluster {
    /// Asks the servers for the map, one after the other until one has answered.
    pub(crate) async fn learn(
        seeds: Vec<Target>,
        settings: Settings,
        pool_size: usize,
    ) -> Result<Self, Error> {
        let began = Instant::now();
        let deadline = began + settings.connect_timeout;
        let cluster = Self {
            seeds,
            settings,
            pool_size,
            began,
            random: AtomicU64::new(seed()),
            routes: RwLock::default(),
            freshness: Mutex::new(Freshness {
                asked: began,
                has_map: false,
                is_stale: false,
                is_asking: false,
            }),
        };
        let mut failure = None;
        for (place, seed) in cluster.seeds.iter().enumerate() {
            let member = cluster.new_member(seed.clone());
            // One that does not answer leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(cluster.seeds.len() - place).unwrap_or(u32::MAX);
            let until = Instant::now() + left / others;
            match cluster.ask(&member, until).await {
                Ok(told) => {
                    cluster.begin_with(member, told);
                    return Ok(cluster);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(Error::Argument("a client needs the URL of a server")))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Whether all servers speak HTTP, and not the Redis protocol.
    pub(crate) fn is_over_http(&self) -> bool {
        self.seeds.first().is_some_and(|seed| seed.scheme.is_http())
    }

    /// Whether there is a cluster, as far as the client knows.
    pub(crate) fn has_map(&self) -> bool {
        self.freshness().has_map
    }

    /// Where a request goes: to the owner of the slot, unless it was tried or is suspected; else to whom is best. None if all
    /// were tried.
    pub(crate) fn route(&self, slot: Option<Slot>, tried: &[Arc<Member>]) -> Option<Arc<Member>> {
        let now = self.began.elapsed();
        let routes = self.routes();
        let is_new = |member: &Arc<Member>| !tried.iter().any(|other| Arc::ptr_eq(other, member));
        let owner = slot
            .and_then(|slot| routes.owner(slot))
            .filter(|owner| is_new(owner));
        if let Some(owner) = owner
            && !owner.load().is_suspected(now)
        {
            return Some(Arc::clone(owner));
        }
        let mut best = None;
        for is_preferred in [true, false] {
            let candidates: Vec<&Arc<Member>> = routes
                .members
                .iter()
                .zip(&routes.is_preferred)
                .filter(|(member, preferred)| **preferred == is_preferred && is_new(member))
                .map(|(member, _)| member)
                .collect();
            let loads: Vec<Load> = candidates.iter().map(|one| one.load().clone()).collect();
            let Some(place) = choose(&loads, now, self.next_random()) else {
                continue;
            };
            if !loads[place].is_suspected(now) {
                return Some(Arc::clone(candidates[place]));
            }
            best = best.or(Some(candidates[place]));
        }
        // All are suspected; then the owner is as good as any, and better.
        owner.or(best).map(Arc::clone)
    }

    /// Whether there is another server than one.
    pub(crate) fn has_others(&self) -> bool {
        self.routes().members.len() > 1
    }

    /// Every member that owns something, or all of them where that is not known.
    pub(crate) fn owners(&self) -> Vec<Arc<Member>> {
        let routes = self.routes();
        let preferred = routes.members.iter().zip(&routes.is_preferred);
        preferred
            .filter(|(_, preferred)| **preferred)
            .map(|(member, _)| Arc::clone(member))
            .collect()
    }

    /// The member with this address, which is new if need be. None if there are too many.
    pub(crate) fn member(&self, target: &Target) -> Option<Arc<Member>> {
        let mut routes = self.routes_mut();
        let place = self.place(&mut routes, target)?;
        Some(Arc::clone(&routes.members[place]))
    }

    /// Takes over that a slot has another owner, and that more may have. None if there are too many members.
    pub(crate) fn moved(&self, slot: u16, to: &Target) -> Option<Arc<Member>> {
        let mut routes = self.routes_mut();
        let place = self.place(&mut routes, to)?;
        if routes.owners.is_empty() {
            routes.owners = vec![NOBODY; usize::from(SLOTS)].into();
        }
        routes.owners[usize::from(slot)] = u16::try_from(place).ok()?;
        routes.is_preferred[place] = true;
        let owner = Arc::clone(&routes.members[place]);
        drop(routes);
        let mut freshness = self.freshness();
        // Who sends elsewhere knows of a cluster.
        freshness.has_map = true;
        freshness.is_stale = true;
        Some(owner)
    }

    /// Says that the map may be old. Without one there is nothing to doubt.
    pub(crate) fn doubt(&self) {
        let mut freshness = self.freshness();
        freshness.is_stale |= freshness.has_map;
    }

    /// The right to ask for the map, if that is due and nobody does.
    pub(crate) fn due(&self) -> Option<Turn<'_>> {
        let mut freshness = self.freshness();
        let interval = if freshness.is_stale {
            LEAST_INTERVAL
        } else {
            LONGEST_INTERVAL
        };
        let may_be_old = freshness.is_stale || freshness.has_map;
        if !may_be_old || freshness.is_asking || freshness.asked.elapsed() < interval {
            return None;
        }
        freshness.is_asking = true;
        freshness.asked = Instant::now();
        Some(Turn {
            cluster: self,
            is_done: false,
        })
    }

    /// Asks for the map until somebody tells it.
    pub(crate) async fn refresh(&self, mut turn: Turn<'_>, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + MAP_TIMEOUT);
        let mut asked = Vec::new();
        // To ask without the time for an answer would only cast suspicion.
        while asked.len() < MAX_ASKED
            && Instant::now() < deadline
            && let Some(member) = self.route(None, &asked)
        {
            // Half of what is left, so that one that is silent leaves time for another.
            let left = deadline.saturating_duration_since(Instant::now());
            if let Ok(Told::Map(map)) = self.ask(&member, Instant::now() + left / 2).await {
                self.install(map);
                turn.is_done = true;
                return;
            }
            asked.push(member);
        }
    }

    async fn ask(&self, member: &Member, deadline: Instant) -> Result<Told, Error> {
        let checkout = member.pool.check_out(deadline).await?;
        let mut watch = member.watch();
        let connected = checkout.connection(None, deadline).await;
        let told = match connected {
            Ok(mut connection) => {
                watch.is_sent();
                let told = connection.map(member.pool.target(), deadline).await;
                if connection.is_usable() {
                    checkout.give_back(connection);
                }
                told
            }
            Err(error) => Err(error),
        };
        watch.end(told.is_ok());
        told
    }

    /// The first map, or what there is without one.
    fn begin_with(&self, member: Member, told: Told) {
        let mut routes = self.routes_mut();
        routes.members.push(Arc::new(member));
        routes.is_preferred.push(true);
        drop(routes);
        match told {
            Told::Map(map) => self.install(map),
            Told::Alone => {}
            Told::NotYet => {
                let mut routes = self.routes_mut();
                for seed in &self.seeds {
                    self.place(&mut routes, seed);
                }
                drop(routes);
                self.freshness().is_stale = true;
            }
        }
    }

    fn install(&self, map: Map) {
        let has_holes = map.owners.contains(&NOBODY);
        let mut routes = self.routes_mut();
        let known = std::mem::take(&mut *routes).members;
        let mut is_preferred = vec![false; map.members.len()];
        for owner in &map.owners {
            if let Some(preferred) = is_preferred.get_mut(usize::from(*owner)) {
                *preferred = true;
            }
        }
        if !is_preferred.contains(&true) {
            is_preferred.fill(true);
        }
        // Who stays keeps its connections, and what is known of it.
        let kept = |target: &Target| known.iter().find(|member| member.pool.target() == target);
        routes.members = map
            .members
            .into_iter()
            .map(|target| match kept(&target) {
                Some(member) => Arc::clone(member),
                None => Arc::new(self.new_member(target)),
            })
            .collect();
        routes.is_preferred = is_preferred;
        routes.owners = map.owners;
        for seed in &self.seeds {
            if routes.find(seed).is_none()
                && let Some(member) = kept(seed)
            {
                routes.members.push(Arc::clone(member));
                routes.is_preferred.push(false);
            }
            self.place(&mut routes, seed);
        }
        drop(routes);
        // Somebody is about to own what nobody does.
        let mut freshness = self.freshness();
        freshness.is_stale = has_holes;
        freshness.has_map = true;
    }

    /// The place of a member, which is put at the end if it is new. None if there are too many.
    fn place(&self, routes: &mut Routes, target: &Target) -> Option<usize> {
        let known = routes.find(target);
        // Beside what a map may hold and what the client was given, some that were named since.
        let most = MAX_MEMBERS * 2 + self.seeds.len();
        if known.is_none() && routes.members.len() < most.min(usize::from(NOBODY)) {
            routes
                .members
                .push(Arc::new(self.new_member(target.clone())));
            routes.is_preferred.push(false);
            return Some(routes.members.len() - 1);
        }
        known
    }

    fn new_member(&self, target: Target) -> Member {
        Member {
            pool: Pool::new(target, self.settings.clone(), self.pool_size),
            began: self.began,
            load: Mutex::default(),
        }
    }

    /// Random enough for who is asked, by `SplitMix64`.
    pub(crate) fn next_random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.random.fetch_add(STEP, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    // Nobody panics between two changes that belong together.

    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn freshness(&self) -> MutexGuard<'_, Freshness> {
        self.freshness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the owners, who are a number for each of the slots.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("seeds", &self.seeds)
            .field("members", &self.routes().members)
            .finish_non_exhaustive()
    }
}

impl Routes {
    fn owner(&self, slot: Slot) -> Option<&Arc<Member>> {
        let place = *self.owners.get(usize::from(slot.number()))?;
        self.members.get(usize::from(place))
    }

    fn find(&self, target: &Target) -> Option<usize> {
        let mut members = self.members.iter();
        members.position(|member| member.pool.target() == target)
    }
}

impl Member {
    /// Begins to watch a request that goes there.
    pub(crate) fn watch(&self) -> Watch<'_> {
        self.load().begin();
        Watch {
            member: self,
            since: Instant::now(),
            is_ended: false,
        }
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        // Figures are never half changed.
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way, as its member's load has it.
pub(crate) struct Watch<'a> {
    member: &'a Member,
    since: Instant,
    is_ended: bool,
}

impl Watch<'_> {
    /// There is a connection; what it took to make one is not the latency of the member.
    pub(crate) fn is_sent(&mut self) {
        self.since = Instant::now();
    }

    /// The request is over, and whether its member did what is asked of a member.
    pub(crate) fn end(mut self, is_well: bool) {
        self.is_ended = true;
        let now = Instant::now();
        let at = now - self.member.began;
        let mut load = self.member.load();
        if is_well {
            load.answered(at, now - self.since);
        } else {
            load.failed(at);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            let now = Instant::now();
            let at = now - self.member.began;
            self.member.load().abandoned(at, now - self.since);
        }
    }
}

/// The right to ask for the map, which one request has at a time. Given up halfway, the map is asked for again.
pub(crate) struct Turn<'a> {
    cluster: &'a Cluster,
    is_done: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut freshness = self.cluster.freshness();
        freshness.is_asking = false;
        freshness.is_stale |= !self.is_done;
    }
}

/// Where random numbers begin: another place for each client, or all of them would choose alike.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
