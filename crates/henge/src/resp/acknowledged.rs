//! What `WAIT` waits for: which partitions a connection has written to, and how many replicas beside their leaders have what they
//! have come to. It says no more than is so: of what was written at ONE nothing is said any more once its partition has another term, as
//! what its leader had stamped may be gone with that.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::topology::Epoch;
use henge_wire::{PARTITIONS, Partition};

use super::session::Session;
use super::spread::Further;
use super::table::Spec;
use crate::cluster::routing::Routes;
use crate::cluster::view::{Member, Owner};
use crate::config::ConsistencyLevel;
use crate::net::data_thread::Local;

/// How long a leader waits at once: less than a question to it may take.
const STEP: Duration = Duration::from_secs(1);

/// How long to wait before those are asked again that did not answer, if nothing is heard of another topology.
const PAUSE: Duration = Duration::from_millis(100);

/// Of a partition all terms count.
const ANY: Epoch = 0;

/// What nobody can say any more: writes at ONE of several terms.
const LOST: Epoch = Epoch::MAX;

/// Nothing was written. No term is as high, nor is the one above.
const NOTHING: Epoch = Epoch::MAX - 1;

/// The partitions that a connection has written to: for each the term that it must be in still, if it must. It has no memory before
/// the first write, and 4 KiB from then on.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Vec<Epoch>);

impl Writes {
    /// A write is sent to a partition's leader, by a view that has it in this term.
    pub(super) fn note(&mut self, partition: Partition, level: ConsistencyLevel, term: Epoch) {
        let needs = if level == ConsistencyLevel::One {
            term
        } else {
            ANY
        };
        if self.0.is_empty() {
            self.0.resize(usize::from(PARTITIONS), NOTHING);
        }
        let known = &mut self.0[usize::from(partition.number())];
        *known = match (*known, needs) {
            (ANY | NOTHING, other) | (other, ANY) => other,
            (one, other) if one == other => one,
            _ => LOST,
        };
    }

    fn iter(&self) -> impl Iterator<Item = (Partition, Epoch)> {
        let all = Partition::all().zip(self.0.iter().copied());
        all.filter(|&(_, needs)| needs != NOTHING)
    }
}

/// Who asks the leaders.
pub(super) struct Acknowledged {
    pub(super) writes: Writes,
    pub(super) local: Rc<Local>,
    pub(super) session: Session,
    pub(super) spec: &'static Spec,
}

impl Acknowledged {
    /// How many replicas beside the leaders have all of it: as many as are wanted, or as many as there are when the time is over, or
    /// when no more of them can be had. Without a time it is waited for ever.
    pub(super) async fn by(&self, wanted: usize, deadline: Option<Instant>) -> usize {
        let mut changes = self.local.shared.cluster.changes();
        loop {
            let Some(routes) = self.local.routing.routes() else {
                return 0;
            };
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let step = left.map_or(STEP, |left| left.min(STEP));
            let asked = self.ask(&routes, wanted, step).await;
            let is_over = deadline.is_some_and(|at| Instant::now() >= at);
            match asked {
                Asked::Acknowledged(count) if count >= wanted || is_over => return count,
                Asked::Never => return 0,
                Asked::NotNow if is_over => return 0,
                // A leader that cannot tell yet says so at once.
                Asked::NotNow | Asked::Acknowledged(_) => {
                    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                    let pause = left.map_or(PAUSE, |left| left.min(PAUSE));
                    // Whether something is heard or not is the same.
                    let _ = tokio::time::timeout(pause, changes.changed()).await;
                }
            }
        }
    }

    /// Asks all leaders once.
    async fn ask(&self, routes: &Rc<Routes>, wanted: usize, step: Duration) -> Asked {
        let view = &routes.view;
        let mut shares: Vec<(Arc<Member>, Vec<String>)> = Vec::new();
        for (partition, needed) in self.writes.iter() {
            if needed != ANY && view.term(partition) != needed {
                return Asked::Never;
            }
            let leader = match view.owner(partition) {
                Owner::Nowhere => None,
                _ => view.holder(partition),
            };
            let Some(leader) = leader.filter(|leader| leader.is_reachable() || leader.is_me) else {
                return Asked::NotNow;
            };
            let known = shares.iter().position(|(member, _)| member.id == leader.id);
            let place = known.unwrap_or_else(|| {
                shares.push((Arc::clone(leader), Vec::new()));
                shares.len() - 1
            });
            let words = &mut shares[place].1;
            words.push(partition.number().to_string());
            words.push(needed.to_string());
        }
        // Who has written nothing waits for nobody.
        let replicas = view.replication.min(view.members.len());
        let mut least = replicas.saturating_sub(1);
        let further = Further::new(&self.session, &self.local, routes, self.spec);
        let head = [
            "HENGE".to_owned(),
            "ACKED".to_owned(),
            wanted.to_string(),
            step.as_millis().to_string(),
        ];
        // One after the other is soon enough: most have acknowledged by then.
        for (member, words) in shares {
            let words: Vec<&[u8]> = head.iter().chain(&words).map(String::as_bytes).collect();
            match further.number_of(&member, &words).await {
                Some(count) => least = least.min(usize::try_from(count).unwrap_or(0)),
                None => return Asked::NotNow,
            }
        }
        Asked::Acknowledged(least)
    }
}

/// What all leaders have said.
enum Asked {
    /// So many at the least have all of it.
    Acknowledged(usize),
    /// One does not answer now.
    NotNow,
    /// Nobody can say any more.
    Never,
}

/// How many replicas beside this one have what it has stamped of these partitions until now, each of which it must lead, in this
/// term if one is named; as many as are wanted, or as many as have when the time is over. None where it does not lead one.
pub(super) async fn acknowledged_here(
    local: &Local,
    partitions: &[(Partition, Epoch)],
    wanted: usize,
    step: Duration,
) -> Option<usize> {
    let (cache, replicas) = (&local.shared.cache, &local.shared.replicas);
    let deadline = Instant::now() + step;
    let goals: Option<Vec<_>> = partitions
        .iter()
        .map(|&(partition, term)| {
            let stamped = cache.stamped(partition)?;
            (term == ANY || stamped.term() == term).then_some((partition, stamped))
        })
        .collect();
    let goals = goals?;
    loop {
        let heard = replicas.heard.notified();
        let each = goals
            .iter()
            .map(|&(partition, goal)| cache.followers_with(partition, goal));
        // Who leads one no more has none.
        let least = each.min().unwrap_or(Some(wanted))?;
        let left = deadline.saturating_duration_since(Instant::now());
        if least >= wanted || left.is_zero() {
            return Some(least);
        }
        // Whether it is over shows above.
        let _ = tokio::time::timeout(left, heard).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_writes_at_one_in_several_terms_nothing_is_known() {
        use ConsistencyLevel::{All, One, Quorum};
        for (notes, needed) in [
            (&[(Quorum, 3), (All, 4)][..], ANY),
            (&[(One, 3), (Quorum, 4)], 3),
            (&[(Quorum, 3), (One, 4), (One, 4)], 4),
            (&[(One, 3), (One, 4)], LOST),
            (&[(One, 3), (One, 4), (One, 3), (Quorum, 4)], LOST),
        ] {
            let mut writes = Writes::default();
            let partition = Partition::of(b"k");
            for &(level, term) in notes {
                writes.note(partition, level, term);
            }
            assert!(writes.iter().eq([(partition, needed)]), "{notes:?}");
        }
    }
}
