//! What is known from the rounds so far, and what the keys of the keyboard change of how it is shown. It asks nobody and draws nothing; time
//! is what the rounds came at.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::figures::whole;
use super::poll::{Pages, Round};
use super::sample::{Figures, Sample};
use crate::cli::insight::hot::{self, Hot};

/// The most points of a course: the columns of a wide screen.
const MOST_POINTS: usize = 512;
/// The most keys and slow requests that there is ever room for.
const MOST_ROWS: usize = 50;

/// What the members are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Operations,
    Memory,
    Items,
    HitRatio,
}

impl Sort {
    const ALL: [Self; 5] = [
        Self::Name,
        Self::Operations,
        Self::Memory,
        Self::Items,
        Self::HitRatio,
    ];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Operations => "operations",
            Self::Memory => "memory",
            Self::Items => "items",
            Self::HitRatio => "hit ratio",
        }
    }
}

/// A node that was looked at.
#[derive(Debug)]
pub(super) struct Node {
    /// What it last said, and when.
    last: Option<(Sample, Duration)>,
    pub(super) pages: Option<Pages>,
    /// None while it does not answer.
    pub(super) figures: Option<Figures>,
    /// Why it does not, and since when.
    pub(super) silence: Option<(String, Duration)>,
}

/// How figures went, the newest first; none where nobody answered or there is no such figure.
#[derive(Debug, Default)]
pub(super) struct Courses {
    pub(super) operations: VecDeque<Option<u64>>,
    /// In thousandths.
    pub(super) hit_ratio: VecDeque<Option<u64>>,
    /// Of the limit, in thousandths.
    pub(super) memory: VecDeque<Option<u64>>,
    /// In microseconds.
    pub(super) slowest: VecDeque<Option<u64>>,
}

impl Courses {
    fn push(&mut self, figures: Option<&Figures>) {
        let rates = figures.and_then(|figures| figures.rates.as_ref());
        let thousandths = |part: f64| whole(part * 1000.0);
        let memory = figures.map(|figures| {
            let sizes = figures.sizes;
            thousandths(sizes.charged_bytes as f64 / sizes.limit_bytes.max(1) as f64)
        });
        let slowest = rates.and_then(|rates| rates.quantile(0.99));
        for (course, point) in [
            (
                &mut self.operations,
                rates.map(|rates| whole(rates.operations)),
            ),
            (
                &mut self.hit_ratio,
                rates
                    .and_then(super::sample::Rates::hit_ratio)
                    .map(thousandths),
            ),
            (&mut self.memory, memory),
            (
                &mut self.slowest,
                slowest.map(|took| took.as_micros() as u64),
            ),
        ] {
            course.push_front(point);
            course.truncate(MOST_POINTS);
        }
    }
}

/// All that a frame is drawn from.
#[derive(Debug)]
pub(super) struct State {
    /// The URL of the node at hand.
    pub(super) url: String,
    pub(super) is_cluster: bool,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    pub(super) sort: Sort,
    /// When the last round came.
    pub(super) now: Duration,
    /// The last status that somebody gave.
    pub(super) status: Option<Value>,
    /// Why nobody gives one, and since when.
    pub(super) silence: Option<(String, Duration)>,
    pub(super) nodes: BTreeMap<String, Node>,
    /// Of all that were looked at.
    pub(super) total: Option<Figures>,
    pub(super) courses: Courses,
}

/// What a key of the keyboard asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Quit,
    Cluster,
    Sort,
    Pause,
    Help,
}

impl State {
    pub(super) fn new(url: String, is_cluster: bool) -> Self {
        Self {
            url,
            is_cluster,
            is_paused: false,
            shows_help: false,
            sort: Sort::default(),
            now: Duration::ZERO,
            status: None,
            silence: None,
            nodes: BTreeMap::new(),
            total: None,
            courses: Courses::default(),
        }
    }

    /// Does what a key asks for, and says whether that is the end.
    pub(super) fn press(&mut self, press: Press) -> bool {
        match press {
            Press::Quit => return true,
            Press::Sort => self.sort = self.sort.next(),
            Press::Pause => self.is_paused = !self.is_paused,
            Press::Help => self.shows_help = !self.shows_help,
            Press::Cluster => {
                self.is_cluster = !self.is_cluster;
                // What one node does and what all do is not one course.
                self.courses = Courses::default();
                self.nodes.clear();
                self.total = None;
            }
        }
        false
    }

    /// Takes what was heard at a time since the start.
    pub(super) fn take(&mut self, round: Round, at: Duration) {
        self.now = at;
        match round.status {
            Ok(status) => {
                self.status = Some(status);
                self.silence = None;
            }
            Err(why) => {
                let since = self.silence.take().map_or(at, |(_, since)| since);
                self.silence = Some((why, since));
                // What it said before is not how it is.
                for node in self.nodes.values_mut() {
                    node.figures = None;
                }
            }
        }
        if self.silence.is_none() {
            self.nodes
                .retain(|name, _| round.looks.iter().any(|(known, _)| known == name));
        }
        for (name, look) in round.looks {
            let node = self.nodes.entry(name).or_insert_with(Node::new);
            match look {
                Ok(pages) => node.heard(pages, at),
                Err(why) => node.silent(why, at),
            }
        }
        let mut all = self.nodes.values().filter_map(|node| node.figures.as_ref());
        self.total = all.next().cloned().map(|mut total| {
            all.for_each(|figures| total.add(figures));
            total
        });
        self.courses.push(self.total.as_ref());
    }

    /// The pages of all that answer.
    fn pages(&self) -> impl Iterator<Item = (&String, &Pages)> {
        let answering = self.nodes.iter().filter(|(_, node)| node.figures.is_some());
        answering.filter_map(|(name, node)| Some((name, node.pages.as_ref()?)))
    }

    /// Which keys are used most; or why nobody says so.
    pub(super) fn hot(&self) -> Result<Hot, String> {
        let mut why = "nobody has answered yet".to_owned();
        let mut heard = Vec::new();
        for (name, pages) in self.pages() {
            match &pages.hot {
                Ok(page) => heard.push((name.clone(), page.clone())),
                Err(refused) => why.clone_from(refused),
            }
        }
        if heard.is_empty() {
            return Err(why);
        }
        let hot = hot::of(&heard, MOST_ROWS);
        let hot = hot.ok_or_else(|| "what came is no list of keys".to_owned())?;
        match hot.idle() {
            Some(idle) if hot.is_idle() => Err(idle),
            _ => Ok(hot),
        }
    }

    /// The last slow requests with the nodes that have them, the newest first; or why nobody says.
    pub(super) fn slow(&self) -> Result<Vec<(&str, &Value)>, String> {
        let mut why = "nobody has answered yet".to_owned();
        let (mut entries, mut is_heard) = (Vec::new(), false);
        for (name, pages) in self.pages() {
            match &pages.slow {
                Ok(page) => {
                    is_heard = true;
                    let all = page["entries"].as_array().into_iter().flatten();
                    entries.extend(all.map(|entry| (name.as_str(), entry)));
                }
                Err(refused) => why.clone_from(refused),
            }
        }
        if !is_heard {
            return Err(why);
        }
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry["at_ms"].as_u64()));
        entries.truncate(MOST_ROWS);
        Ok(entries)
    }
}

impl Node {
    fn new() -> Self {
        Self {
            last: None,
            pages: None,
            figures: None,
            silence: None,
        }
    }

    fn heard(&mut self, pages: Pages, at: Duration) {
        let sample = Sample::read(&pages);
        let before = self.last.as_ref();
        let before = before.map(|(before, then)| (before, at.saturating_sub(*then)));
        self.figures = Some(Figures::of(&sample, before));
        self.last = Some((sample, at));
        self.pages = Some(pages);
        self.silence = None;
    }

    fn silent(&mut self, why: String, at: Duration) {
        let since = self.silence.take().map_or(at, |(_, since)| since);
        self.silence = Some((why, since));
        self.figures = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(hits: u64) -> Pages {
        Pages {
            metrics: json!({"hits": hits, "misses": 0, "memory": {"charged_bytes": 50, "limit_bytes": 100}}),
            text: format!(
                "henge_command_duration_seconds_bucket{{le=\"+Inf\",command=\"get\"}} {hits}"
            ),
            ..Pages::default()
        }
    }

    fn round(looks: Vec<(&str, Result<Pages, String>)>) -> Round {
        Round {
            status: Ok(json!({"standing": "member"})),
            looks: looks
                .into_iter()
                .map(|(name, look)| (name.to_owned(), look))
                .collect(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_does_not_answer_leaves_a_gap() {
        let mut state = State::new("http://h:1".to_owned(), true);
        state.take(
            round(vec![("a", Ok(look(0))), ("b", Ok(look(0)))]),
            seconds(1),
        );
        state.take(
            round(vec![("a", Ok(look(10))), ("b", Ok(look(30)))]),
            seconds(2),
        );
        state.take(
            round(vec![("a", Ok(look(20))), ("b", Err("gone".to_owned()))]),
            seconds(4),
        );
        let nobody = Round {
            status: Err("no connection".to_owned()),
            looks: Vec::new(),
        };
        state.take(nobody.clone(), seconds(5));
        state.take(nobody, seconds(6));
        assert_eq!(
            state.silence,
            Some(("no connection".to_owned(), seconds(5)))
        );
        assert_eq!(state.total, None);
        assert_eq!(
            state.nodes["b"].silence,
            Some(("gone".to_owned(), seconds(4)))
        );
        state.take(round(vec![("a", Ok(look(60)))]), seconds(8));
        assert_eq!(state.silence, None);
        let operations: Vec<_> = state.courses.operations.iter().copied().collect();
        assert_eq!(operations, [Some(10), None, None, Some(5), Some(40), None]);
        let memory: Vec<_> = state.courses.memory.iter().copied().collect();
        assert_eq!(
            memory,
            [Some(500), None, None, Some(500), Some(500), Some(500)]
        );
        assert!(!state.nodes.contains_key("b"), "it is a member no more");
    }

    #[test]
    fn keys_change_what_is_shown() {
        let mut state = State::new("http://h:1".to_owned(), false);
        state.take(round(vec![("a", Ok(look(0)))]), seconds(1));
        assert!(!state.press(Press::Pause) && state.is_paused);
        assert!(!state.press(Press::Help) && state.shows_help);
        assert!(!state.press(Press::Cluster) && state.is_cluster);
        assert!(state.courses.memory.is_empty() && state.nodes.is_empty());
        let sorts: Vec<Sort> = (0..5)
            .map(|_| {
                state.press(Press::Sort);
                state.sort
            })
            .collect();
        let [first, others @ ..] = Sort::ALL;
        assert_eq!(sorts, [&others[..], &[first]].concat());
        assert!(state.press(Press::Quit));
    }

    #[test]
    fn slow_requests_of_all_are_one_list() {
        let slow = |times: &[u64]| {
            let entries = times
                .iter()
                .map(|at| json!({"at_ms": at}))
                .collect::<Vec<_>>();
            Pages {
                slow: Ok(json!({"entries": entries})),
                ..look(0)
            }
        };
        let mut state = State::new("http://h:1".to_owned(), true);
        assert!(state.slow().is_err() && state.hot().is_err());
        state.take(
            round(vec![
                ("a", Ok(slow(&[9, 3]))),
                ("b", Ok(slow(&[5]))),
                ("c", Ok(look(0))),
            ]),
            seconds(1),
        );
        let entries = state.slow().expect("two say");
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, entry)| (*name, entry["at_ms"].as_u64()))
            .collect();
        assert_eq!(entries, [("a", Some(9)), ("b", Some(5)), ("a", Some(3))]);
        state.take(round(vec![("c", Ok(look(0)))]), seconds(2));
        assert_eq!(state.slow(), Err("it was not asked".to_owned()));
    }
}
