//! Which answers a client waited for, in a cluster: commands and routes at the levels they were asked for, each with a place among the
//! counters, and how many of each are answered together.

use std::time::Instant;

use smallvec::SmallVec;

use super::counters::ThreadCounters;
use crate::config::ConsistencyLevel;
use crate::http::routes::{ROUTES, RouteId};
use crate::resp::COMMANDS;

const LEVELS: usize = ConsistencyLevel::ALL.len();

/// How many places there are.
pub(super) fn places() -> usize {
    (ROUTES.len() + COMMANDS.entries().len()) * LEVELS
}

/// What was asked for, and how: whose times are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Series {
    /// Of a route its number, and of a command its own behind those.
    what: u16,
    level: ConsistencyLevel,
}

impl Series {
    /// Of a command of the Redis protocol.
    #[inline]
    pub(crate) fn of_command(number: u16, level: ConsistencyLevel) -> Self {
        Self {
            what: ROUTES.len() as u16 + number,
            level,
        }
    }

    /// Of a request over HTTP.
    #[inline]
    pub(crate) fn of_route(route: RouteId, level: ConsistencyLevel) -> Self {
        Self {
            what: route as u16,
            level,
        }
    }

    /// Each that there can be.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let whats = 0..(places() / LEVELS) as u16;
        let levels = ConsistencyLevel::ALL.iter();
        whats.flat_map(move |what| levels.clone().map(move |&level| Self { what, level }))
    }

    #[inline]
    pub(super) fn place(self) -> usize {
        usize::from(self.what) * LEVELS + self.level as usize
    }

    /// What the labels of its series say: the protocol, the command or the route, and the level.
    pub(super) fn labels(self) -> [&'static str; 3] {
        let what = usize::from(self.what);
        let level = self.level.name();
        match what.checked_sub(ROUTES.len()) {
            None => ["http", ROUTES[what].name, level],
            Some(number) => ["resp", COMMANDS.entries()[number].spec.name, level],
        }
    }
}

/// What is answered together: what was read at one time, and may be told at one.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// When it was read; none where nobody asks.
    since: Option<Instant>,
    /// Of a pipeline mostly one or two.
    series: SmallVec<[(Series, u32); 4]>,
}

impl Batch {
    /// Read at this time.
    #[inline]
    pub(crate) fn begin(since: Instant) -> Self {
        Self {
            since: Some(since),
            series: SmallVec::new(),
        }
    }

    /// One more.
    #[inline]
    pub(crate) fn add(&mut self, series: Series) {
        match self.series.iter_mut().find(|(known, _)| *known == series) {
            Some((_, count)) => *count += 1,
            None => self.series.push((series, 1)),
        }
    }

    /// It may be told now.
    #[inline]
    pub(crate) fn told(&mut self, counters: &ThreadCounters) {
        let Some(since) = self.since.take() else {
            return;
        };
        if self.series.is_empty() {
            return;
        }
        let took = since.elapsed();
        for (series, count) in self.series.drain(..) {
            counters.waited(series, took, count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counters::Counters;

    #[test]
    fn each_has_its_own_place_and_labels() {
        let all: Vec<Series> = Series::all().collect();
        assert_eq!(all.len(), places());
        for (place, series) in all.iter().enumerate() {
            assert_eq!(series.place(), place);
        }
        let get = COMMANDS.find(b"get").expect("it is one").number;
        let series = Series::of_command(get, ConsistencyLevel::All);
        assert_eq!(series.labels(), ["resp", "get", "all"]);
        let series = Series::of_route(RouteId::Get, ConsistencyLevel::One);
        assert_eq!(series.labels(), ["http", "get", "one"]);
    }

    #[test]
    fn what_is_told_together_took_as_long() {
        let counters = Counters::new(1);
        let [get, set] = [1, 2].map(|n| Series::of_command(n, ConsistencyLevel::Quorum));
        let mut batch = Batch::begin(Instant::now());
        for series in [get, set, get] {
            batch.add(series);
        }
        batch.told(counters.thread(0));
        batch.told(counters.thread(0));
        let counted: Vec<_> = counters.answers().collect();
        let counts = counted.iter().map(|(series, took)| (*series, took.count()));
        assert_eq!(counts.collect::<Vec<_>>(), [(get, 2), (set, 1)]);
    }
}
