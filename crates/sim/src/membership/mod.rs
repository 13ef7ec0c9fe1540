//! Hundreds of members in one thread, from a seed: they form, rest, lose some at once, and have them back, on a network that
//! loses datagrams; then pauses and ways that are cut in one direction, which must change nothing. It measures how long each
//! takes and what each member sends, and finds every member that is taken for down without being it.

pub mod control;
pub mod network;
pub mod world;

use henge_cluster::gossip::Health;
use henge_cluster::topology::State;
use std::fmt;
use world::World;

/// How often it looks whether all have converged.
const LOOK_MS: u64 = 20;
/// None of the changes takes so long.
const PATIENCE_MS: u64 = 60_000;
/// All start within so long.
const STARTS_MS: u64 = 500;
/// After all know each other, what was begun for that ends: lists that they ask for, loads of new ones.
const SETTLE_MS: u64 = 20_000;
/// What a loss costs is counted for so long.
const LOSS_MS: u64 = 10_000;
/// A member is not there for so long beyond that.
const AWAY_MS: u64 = 5_000;
/// Pauses, and how long each is.
const PAUSES: usize = 100;
const PAUSE_MS: u64 = 300;
/// Ways that are cut in one direction, of each ten members, and for how long.
const CUT_MS: u64 = 30_000;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Chance.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// How many of them are lost at once.
    pub lost: usize,
    /// How long they rest.
    pub rest_ms: u64,
    /// They join one after another, each when the one before is in, and not all at once.
    pub is_one_by_one: bool,
    /// At the end there are pauses, and ways that are cut.
    pub is_disturbed: bool,
}

/// What a member sends, each second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// Datagrams.
    pub datagrams: f64,
    /// Their bytes, sealed.
    pub bytes: f64,
}

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// How long it took until all knew all, and the topology had them.
    pub formed_ms: u64,
    /// How long until the first member held one of the lost for down.
    pub first_down_ms: u64,
    /// How long until all others, and the topology, held exactly the lost for down.
    pub all_down_ms: u64,
    /// How long until all knew that all are back.
    pub back_ms: u64,
    /// In rest.
    pub rest: Rate,
    /// In the ten seconds after the loss.
    pub loss: Rate,
    /// Suspicions in rest and under pauses, each member's of each other counted.
    pub suspicions: usize,
    /// The same while ways were cut.
    pub cut_suspicions: usize,
    /// How long one of either lasted at most.
    pub longest_ms: u64,
}

/// What did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

struct Run {
    world: World,
    members: usize,
    lost: Vec<usize>,
    suspicions: usize,
    longest_ms: u64,
    first_down_ms: Option<u64>,
    /// Who suspects whom, since when.
    suspected: std::collections::BTreeMap<(usize, usize), u64>,
}

/// Runs a plan.
///
/// # Errors
/// A member was taken for down that was not, or they did not converge.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    let mut run = Run {
        world: World::new(plan.seed, plan.members),
        members: plan.members,
        lost: Vec::new(),
        suspicions: 0,
        longest_ms: 0,
        first_down_ms: None,
        suspected: std::collections::BTreeMap::new(),
    };
    let formed_ms = run.form(plan.is_one_by_one)?;
    run.world.control().place();
    run.pass(SETTLE_MS, false)?;
    run.world.take_sent();
    run.pass(plan.rest_ms, false)?;
    let rest = run.rate(plan.rest_ms, plan.members);

    let (all_down_ms, loss) = run.lose(plan.lost)?;
    let back_ms = run.bring_back()?;
    if plan.is_disturbed {
        run.pause_many()?;
    }
    let suspicions = run.suspicions;
    if plan.is_disturbed {
        run.cut_many()?;
    }
    let first_down_ms = run.first_down_ms;
    Ok(Report {
        formed_ms,
        first_down_ms: first_down_ms.ok_or_else(|| Failure("nobody was down".into()))?,
        all_down_ms,
        back_ms,
        rest,
        loss,
        suspicions,
        cut_suspicions: run.suspicions - suspicions,
        longest_ms: run.longest_ms,
    })
}

impl Run {
    fn form(&mut self, is_one_by_one: bool) -> Result<u64, Failure> {
        self.world.start(0, 0);
        for number in 1..self.members {
            if is_one_by_one {
                let told = self.world.random().place(number);
                self.world.start(number, told);
                self.pass(LOOK_MS * 5, false)?;
            } else {
                let wait_ms = STARTS_MS / self.members as u64;
                self.world.start(number, 0);
                self.pass(wait_ms, false)?;
            }
        }
        self.converge("form")?;
        Ok(self.world.now_ms())
    }

    /// Half of them end, half of them fall silent; both at once.
    fn lose(&mut self, count: usize) -> Result<(u64, Rate), Failure> {
        // Never the first, whom the others were told of.
        let mut numbers: Vec<usize> = (1..self.members).collect();
        for place in 0..count {
            let left = numbers.len() - place;
            let other = place + self.world.random().place(left);
            numbers.swap(place, other);
        }
        numbers.truncate(count);
        self.lost = numbers;
        for (place, &number) in self.lost.iter().enumerate() {
            if place % 2 == 0 {
                self.world.kill(number);
            } else {
                self.world.pause(number, true);
            }
        }
        let began_ms = self.world.now_ms();
        self.world.take_sent();
        self.converge("find all that were lost")?;
        let all_down_ms = self.world.now_ms() - began_ms;
        if let Some(first_ms) = &mut self.first_down_ms {
            *first_ms -= began_ms;
        }
        self.pass(LOSS_MS.saturating_sub(all_down_ms), true)?;
        let counted_ms = self.world.now_ms() - began_ms;
        let loss = self.rate(counted_ms, self.members - count);
        self.pass(AWAY_MS, true)?;
        self.check_leaders()?;
        Ok((all_down_ms, loss))
    }

    /// Those that ended start again, the others go on.
    fn bring_back(&mut self) -> Result<u64, Failure> {
        let began_ms = self.world.now_ms();
        for (place, number) in std::mem::take(&mut self.lost).into_iter().enumerate() {
            if place % 2 == 0 {
                self.world.start(number, 0);
            } else {
                self.world.pause(number, false);
            }
        }
        self.converge_with("have all back", true)?;
        let back_ms = self.world.now_ms() - began_ms;
        // What is still on its way about their absence.
        self.pass(AWAY_MS, true)?;
        self.converge("stay together")?;
        self.suspected.clear();
        Ok(back_ms)
    }

    fn pause_many(&mut self) -> Result<(), Failure> {
        for _ in 0..PAUSES {
            let members = self.members;
            let number = self.world.random().place(members);
            self.world.pause(number, true);
            self.pass(PAUSE_MS, false)?;
            self.world.pause(number, false);
            let wait_ms = self.world.random().within(0, PAUSE_MS);
            self.pass(wait_ms, false)?;
        }
        self.converge("bear pauses")
    }

    fn cut_many(&mut self) -> Result<(), Failure> {
        for _ in 0..self.members.div_ceil(10) {
            let members = self.members;
            let from = self.world.random().place(members);
            let to = self.world.random().place(members);
            self.world.network().cut(from, to);
        }
        self.pass(CUT_MS, false)?;
        self.world.network().mend();
        self.converge("bear ways that are cut")
    }

    /// Lets time pass, in which only those may be taken for down that are away, or were when it was said.
    fn pass(&mut self, ms: u64, is_lenient: bool) -> Result<(), Failure> {
        let until_ms = self.world.now_ms() + ms;
        self.world.run_until(until_ms);
        let is_quiet = self.lost.is_empty() && !is_lenient;
        for news in self.world.take_news() {
            match news.health {
                Health::Down => {
                    let is_away = self.lost.contains(&news.of);
                    self.first_down_ms.get_or_insert(news.at_ms);
                    if !is_away && !is_lenient {
                        return Err(Failure(format!(
                            "at {} ms member {} took {} for down, which was not",
                            news.at_ms, news.to, news.of
                        )));
                    }
                }
                Health::Suspected if is_quiet => {
                    self.suspicions += 1;
                    self.suspected.insert((news.to, news.of), news.at_ms);
                }
                Health::Suspected => {}
                Health::Alive => {
                    if let Some(since_ms) = self.suspected.remove(&(news.to, news.of))
                        && is_quiet
                    {
                        self.longest_ms = self.longest_ms.max(news.at_ms - since_ms);
                    }
                }
            }
        }
        Ok(())
    }

    fn converge(&mut self, what: &str) -> Result<(), Failure> {
        self.converge_with(what, false)
    }

    fn converge_with(&mut self, what: &str, is_lenient: bool) -> Result<(), Failure> {
        let until_ms = self.world.now_ms() + PATIENCE_MS;
        while self.world.now_ms() < until_ms {
            self.pass(LOOK_MS, is_lenient)?;
            if self.has_converged() {
                return Ok(());
            }
        }
        let numbers = (0..self.members).filter(|number| !self.lost.contains(number));
        let not: Vec<usize> = numbers
            .filter(|&number| !self.world.sees(number, &self.lost))
            .collect();
        Err(Failure(format!(
            "they did not {what} within {PATIENCE_MS} ms: {not:?} do not see it"
        )))
    }

    fn has_converged(&mut self) -> bool {
        let lost = &self.lost;
        let mut living = (0..self.members).filter(|number| !lost.contains(number));
        if !living.all(|number| self.world.sees(number, lost)) {
            return false;
        }
        (0..self.members).all(|number| {
            let instance = self.world.instance(number);
            let state = self.world.control().state(instance);
            let expected = if self.lost.contains(&number) {
                State::Down
            } else {
                State::Up
            };
            state == Some(expected)
        })
    }

    /// No partition is led by a member that is down.
    fn check_leaders(&mut self) -> Result<(), Failure> {
        let topology = self.world.control().topology();
        for partition in topology.partitions() {
            let leader = topology.placement(partition).leader;
            let is_down = leader.is_some_and(|(node, _)| {
                let node = topology.nodes().get(&node);
                node.is_none_or(|node| node.state == State::Down)
            });
            if is_down {
                return Err(Failure(format!(
                    "partition {} is led by one that is down",
                    partition.number()
                )));
            }
        }
        Ok(())
    }

    fn rate(&mut self, ms: u64, members: usize) -> Rate {
        let sent = self.world.take_sent();
        let member_seconds = ms as f64 / 1_000.0 * members as f64;
        Rate {
            datagrams: sent.datagrams as f64 / member_seconds,
            bytes: sent.bytes as f64 / member_seconds,
        }
    }
}

/// By so much the rate may exceed what the logarithm allows: chance, and counts that are whole.
const MARGIN: f64 = 1.1;

/// By how much the bytes of a member in rest grow faster than the logarithm of the size, at the worst from one of these sizes to a
/// larger one; 1 is as fast.
pub fn growth_over_log(rates: &[(usize, Rate)]) -> f64 {
    let pairs = rates
        .iter()
        .flat_map(|small| rates.iter().map(move |large| (small, large)));
    let over = pairs.filter(|((small, _), (large, _))| small < large).map(
        |((small, rate), (large, larger))| {
            let log = (*large as f64).log2() / (*small as f64).log2();
            larger.bytes / rate.bytes / log
        },
    );
    over.fold(0.0, f64::max)
}

/// Where what a member sends in rest grows faster than the logarithm of the size, by more than a tenth: from one of these sizes
/// to a larger one. None if it does nowhere.
pub fn grows_faster_than_log(rates: &[(usize, Rate)]) -> Option<String> {
    let pairs = rates
        .iter()
        .flat_map(|small| rates.iter().map(move |large| (small, large)));
    let mut pairs = pairs.filter(|((small, _), (large, _))| small < large);
    pairs.find_map(|((small, rate), (large, larger))| {
        let allowed = (*large as f64).log2() / (*small as f64).log2() * MARGIN;
        let bytes = larger.bytes / rate.bytes;
        let datagrams = larger.datagrams / rate.datagrams;
        (bytes > allowed || datagrams > allowed).then(|| {
            format!(
                "from {small} to {large} members bytes grow {bytes:.2} times and datagrams {datagrams:.2} times; {allowed:.2} is allowed"
            )
        })
    })
}
