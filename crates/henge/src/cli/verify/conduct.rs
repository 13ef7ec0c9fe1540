//! A run from its beginning to its end: it starts the nodes and the load, does to the nodes what the schedule says, ends rounds and has
//! them judged, and looks meanwhile at what the nodes say of themselves. What it all means is for the report to say.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use henge_checker::{Condition, Event};

use super::faults::{Cut, Fault, Happened, Kind, Schedule, Victim};
use super::judge::{Findings, Judge};
use super::load::{CONNECT_TIMEOUT, Client, Load, Round};
use super::nodes::{Nodes, Places};
use super::options::{Cluster, Plan};
use super::reported::Reported;
use super::request::{Asked, Told};
use super::whole::{self, Pages};
use crate::cli::bench;
use crate::cli::stop_signals::StopSignals;
use crate::encryption::random_number;

/// How often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(100);
/// How often nodes are asked what they have evicted.
const WATCH: Duration = Duration::from_secs(1);
/// How long nodes have to become one cluster again after a fault: ten times what it takes. What takes longer is told.
const WHOLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a node has to end in order; then it is killed. It is set to wait for its clients for a tenth of that.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long nodes have, when all is over, to say what was lost: they find out as they align, and some ticks later whether that stays so.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a page may take: longer than a healthy node takes by far.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a round is, at the most: what the checker does in a moment, and many faults are shorter.
const MAX_ROUND: Duration = Duration::from_secs(10);
/// The same at the least.
const MIN_ROUND: Duration = Duration::from_secs(1);
/// How many rounds later the keys of one are read once more: what comes back, or goes, comes and goes with a later fault.
const LOOK_AGAIN: usize = 2;
/// Ends of nodes that are told. One that ends at once each time would be all that the report tells of.
const MOST_ENDS: usize = 20;
/// Clients that read them, together.
const LOOKERS: u64 = 8;
/// How often those of nodes that are away are asked for.
const RETRY: Duration = Duration::from_millis(500);
/// How long that takes at the most; who has not answered by then is not waited for.
const LOOK_AGAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the writes that fill a cache: bytes, how many keys they are spread over, and the pause between two of a node. Some hundred a second
/// for each node turn its 200 items over each second.
const FILL_SIZE: usize = 256;
const FILL_KEYS: u64 = 100_000;
const FILL_PAUSE: Duration = Duration::from_millis(4);

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) load: Load,
    pub(super) faults: Vec<Happened>,
    pub(super) findings: Findings,
    /// How long the load lasted, in microseconds.
    pub(super) lasted: u64,
    pub(super) memory: Memory,
    pub(super) evictions: u64,
    /// Nodes that ended though nobody had ended them.
    pub(super) ended: Vec<String>,
    /// Keys that were not read again when their round was over.
    pub(super) unread: u64,
    /// What the nodes say is lost, if any of them said it.
    pub(super) reported: Option<Reported>,
    /// What else is to be known.
    pub(super) remarks: Vec<String>,
    /// Where the files of the nodes are, if they were left.
    pub(super) kept: Option<String>,
}

/// When so many nodes were without their memory that a quorum's may have been lost, in microseconds of the run.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Nodes that have lost theirs and may not have got it from others again.
    without: BTreeSet<usize>,
    quorum: usize,
    since: Option<u64>,
    /// The times.
    pub(super) lost: Vec<(u64, u64)>,
}

impl Memory {
    pub(super) fn new(replicas: u64) -> Self {
        Self {
            quorum: replicas as usize / 2 + 1,
            ..Self::default()
        }
    }

    /// These nodes have lost theirs.
    pub(super) fn lose(&mut self, nodes: &[usize], at: u64) {
        self.without.extend(nodes);
        if self.without.len() >= self.quorum {
            self.since.get_or_insert(at);
        }
    }

    /// All have theirs.
    pub(super) fn is_whole(&mut self, at: u64) {
        self.without.clear();
        if let Some(since) = self.since.take() {
            self.lost.push((since, at));
        }
    }

    /// Whether what was asked to be written and was missing at these times may have been lost with a quorum's memory.
    pub(super) fn excuses(&self, asked: u64, missed: u64) -> bool {
        let open = self.since.map(|since| (since, u64::MAX));
        let mut times = self.lost.iter().copied().chain(open);
        times.any(|(from, to)| asked <= to && from <= missed)
    }
}

/// What the tasks of a run share. Nobody holds a borrow while waiting.
struct Run {
    load: Load,
    nodes: RefCell<Option<Nodes>>,
    over: watch::Receiver<bool>,
    /// All clients are done, and faults too.
    is_quiet: Cell<bool>,
    faults: RefCell<Vec<Happened>>,
    memory: RefCell<Memory>,
    /// Of each node what it had evicted when it was asked last, and in all its lives before.
    evictions: RefCell<Vec<(u64, u64)>>,
    ended: RefCell<Vec<String>>,
    unread: Cell<u64>,
    remarks: RefCell<Vec<String>>,
    bar: ProgressBar,
}

/// Runs a plan.
pub(super) fn run(plan: &Plan) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| format!("the runtime does not start: {error}"))?;
    runtime.block_on(async {
        let mut signals = StopSignals::new().map_err(|error| error.to_string())?;
        let (over, is_over) = watch::channel(false);
        let work = conduct(plan, is_over);
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => return outcome,
            () = signals.next() => { over.send_replace(true); }
        }
        tokio::select! {
            outcome = &mut work => outcome,
            // What was started goes with the tasks, and these with the runtime.
            () = signals.next() => Err("told to stop twice: nothing was judged to its end".to_owned()),
        }
    })
}

async fn conduct(plan: &Plan, over: watch::Receiver<bool>) -> Result<Outcome, String> {
    let judge = Judge::start(plan.level, plan.clients, plan.history.as_ref())?;
    let (nodes, places) = match &plan.cluster {
        Cluster::Own(own) => {
            let mut nodes = Nodes::new(own, own.faults.contains(&Kind::Partition))?;
            for n in 0..own.nodes {
                nodes.start(n)?;
            }
            let places = nodes.places();
            (Some(nodes), places)
        }
        Cluster::Others(targets) => {
            let hosts = targets.iter();
            let hosts = hosts.map(|target| (target.host.clone(), target.port));
            (None, Places::of(hosts.collect()))
        }
    };
    let count = places.count();
    let replicas = plan.own().and_then(|own| own.replicas).unwrap_or(1);
    let mut run = Run {
        load: Load::new(plan.clone(), places, random_number() as u32),
        nodes: RefCell::new(nodes),
        over,
        is_quiet: Cell::new(false),
        faults: RefCell::default(),
        memory: RefCell::new(Memory::new(replicas)),
        evictions: RefCell::new(vec![(0, 0); count]),
        ended: RefCell::default(),
        unread: Cell::new(0),
        remarks: RefCell::default(),
        bar: bench::bar(),
    };
    run.begin().await?;
    // The clock of the run begins when its load does.
    run.load.restart();
    let run = Rc::new(run);
    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        let client = Client::new(number, &run.load.places);
        let run = Rc::clone(&run);
        clients.spawn_local(async move { client.run(&run.load).await });
    }
    let mut others = JoinSet::new();
    others.spawn_local(Rc::clone(&run).watch());
    if let Some(own) = plan.own().filter(|own| own.evicts) {
        for n in 0..own.nodes {
            others.spawn_local(Rc::clone(&run).fill(n));
        }
    }
    let faults = tokio::task::spawn_local(Rc::clone(&run).faults());
    let rounds = tokio::task::spawn_local(Rc::clone(&run).rounds(judge.rounds()));

    let is_whole_time = run.progress().await;
    run.load.is_over.set(true);
    let lasted = run.load.now();
    run.load.tally.borrow_mut().end(lasted);
    if !is_whole_time {
        run.remark(format!(
            "ended after {:.0} s, as it was told to",
            lasted as f64 / 1e6
        ));
    }
    run.bar.set_message("the clients and the faults end");
    while clients.join_next().await.is_some() {}
    let broken = |_| "a task of the run panicked".to_owned();
    faults.await.map_err(broken)?;
    run.is_quiet.set(true);
    run.bar.set_message("the last rounds are judged");
    rounds.await.map_err(broken)?;
    run.look_at_evictions().await;
    let judged = tokio::task::spawn_blocking(move || judge.end());
    let findings = judged.await.map_err(|error| error.to_string())??;
    let reported = run.reported_losses(&findings).await;
    others.shutdown().await;
    run.bar.finish_and_clear();
    let run = Rc::into_inner(run).ok_or("a task of the run is left")?;
    Ok(run.outcome(findings, lasted, reported))
}

impl Run {
    /// Waits until the nodes are there.
    async fn begin(&mut self) -> Result<(), String> {
        if self.nodes.borrow().is_none() {
            for n in 0..self.load.places.count() {
                if let Some(Value::Object(_)) = self.page(n, "/cluster/status").await {
                    return Ok(());
                }
            }
            return Err("no node of --url answers as one of Henge".to_owned());
        }
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        while let Some(missing) = self.missing().await {
            let ended = self.nodes.get_mut().as_mut().and_then(|nodes| {
                let (n, status) = nodes.ended()?;
                Some(format!(
                    "node{} has ended: {status}: {}",
                    n + 1,
                    nodes.last_words(n)
                ))
            });
            if let Some(ended) = ended {
                return Err(ended);
            }
            if *self.over.borrow() {
                return Err("told to stop before it began".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the nodes are no cluster after {WHOLE_TIMEOUT:?}: {missing}"
                ));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Shows how far it is, until the time is over, or it is told to end; whether it is the first.
    async fn progress(&self) -> bool {
        let whole = self.load.plan.duration;
        self.bar.set_prefix("verify");
        self.bar.set_length(whole.as_millis() as u64);
        let end = self.load.start + whole;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return true;
            }
            if self.is_over_within(left.min(LOOK)).await && *self.over.borrow() {
                return false;
            }
            self.bar.set_position(self.load.now() / 1000);
            let answered = {
                let tally = self.load.tally.borrow();
                tally.reads.answered() + tally.writes.answered()
            };
            let doing = self.load.phase.get().map_or("all is well", Kind::name);
            self.bar.set_message(format!("{answered} answers; {doing}"));
        }
    }

    fn remark(&self, text: String) {
        /// A run that has more of them is beyond reading.
        const MOST: usize = 50;
        let mut remarks = self.remarks.borrow_mut();
        if remarks.len() < MOST {
            remarks.push(text);
        }
    }

    /// Waits so long, and no longer than the load lasts; whether that is over.
    async fn is_over_within(&self, time: Duration) -> bool {
        let mut over = self.over.clone();
        let told = async {
            // An error means that nobody is there any more to say so.
            if over.wait_for(|over| *over).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let end = std::time::Instant::now() + time;
        let last = self.load.start + self.load.plan.duration;
        tokio::select! {
            () = told => true,
            () = tokio::time::sleep_until(end.min(last).into()) => end >= last || self.load.is_over.get(),
        }
    }

    /// A page of a node, if it answers with JSON.
    async fn page(&self, n: usize, path: &str) -> Option<Value> {
        self.told(n, path).await.ok()
    }

    /// A page of a node, or what it says or does instead.
    async fn told(&self, n: usize, path: &str) -> Result<Value, String> {
        let connected = self.load.places.connect(n, CONNECT_TIMEOUT).await;
        let mut connection = connected.map_err(|why| format!("cannot be reached: {why}"))?;
        match connection.page(path, PAGE_TIMEOUT).await {
            Told::Answered(reply) if reply.status == 200 => serde_json::from_slice(&reply.body)
                .map_err(|error| format!("answers {path} with what is no JSON: {error}")),
            Told::Answered(reply) => Err(format!(
                "answers {path} with {}: {}",
                reply.status,
                String::from_utf8_lossy(&reply.body)
            )),
            _ => Err(format!("does not answer {path}")),
        }
    }

    /// Whether this node is ours and runs, or is another's, and so may be asked.
    fn may_be_asked(&self, n: usize) -> bool {
        let nodes = self.nodes.borrow();
        nodes.as_ref().is_none_or(|nodes| nodes.is_running(n))
    }

    /// What is missing for all nodes to be one cluster, as each of them says.
    async fn missing(&self) -> Option<String> {
        let mut pages = Pages::new();
        for n in 0..self.load.places.count() {
            let page = match self.told(n, "/ready").await {
                Ok(_) => self.told(n, "/cluster/status").await,
                Err(why) => Err(why),
            };
            pages.push(page);
        }
        whole::missing(&pages)
    }

    /// Keeps what the nodes say of the cluster beside their logs, for who looks into it. The name of the folder.
    async fn keep_pages(&self, at: u64) -> Option<String> {
        let folder = self.with_nodes(|nodes| {
            nodes.keep();
            nodes.directory().join(format!("at-{}-s", at / 1_000_000))
        })?;
        for n in 0..self.load.places.count() {
            for path in ["status", "events"] {
                let page = self.told(n, &format!("/cluster/{path}")).await;
                let text = page.map_or_else(|why| why, |page| format!("{page:#}"));
                let file = folder.join(format!("node{}-{path}.json", n + 1));
                let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, text));
                if let Err(error) = written {
                    self.remark(format!("{} cannot be written: {error}", file.display()));
                }
            }
        }
        Some(folder.display().to_string())
    }

    /// The number of the node that leads what all agree on.
    async fn leader(&self) -> Option<usize> {
        for n in 0..self.load.places.count() {
            if !self.may_be_asked(n) {
                continue;
            }
            let status = self.page(n, "/cluster/status").await;
            let name = status.as_ref().and_then(|status| status["leader"].as_str());
            let number = name.and_then(|name| name.strip_prefix("node")?.parse::<usize>().ok());
            if let Some(number) = number {
                return number
                    .checked_sub(1)
                    .filter(|n| *n < self.load.places.count());
            }
        }
        None
    }

    /// Does what the schedule says, one after the other, until the load is over.
    async fn faults(self: Rc<Self>) {
        let schedule = self.load.plan.own().and_then(|own| {
            Schedule::new(self.load.plan.seed, &own.faults, own.nodes, own.at_once)
        });
        let Some(mut schedule) = schedule else { return };
        loop {
            let fault = schedule.next();
            if self.is_over_within(fault.calm).await {
                return;
            }
            self.carry_out(fault).await;
        }
    }

    async fn carry_out(&self, fault: Fault) {
        let leader = self.leader().await;
        let count = self.load.places.count();
        let first = match fault.victim {
            Victim::Leader => leader.unwrap_or(0),
            Victim::Node(n) => n,
        };
        let nodes: Vec<usize> = (first..first + fault.count).map(|n| n % count).collect();
        // What was evicted until now is not known any more when they are gone.
        self.look_at_evictions().await;
        let began = self.load.now();
        self.load.phase.set(Some(fault.kind));
        let how = match self.hurt(fault, &nodes, began).await {
            Ok(how) => how,
            Err(why) => {
                self.remark(format!("{} could not be done: {why}", fault.kind.name()));
                String::new()
            }
        };
        let ended = self.load.now();
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        let whole = loop {
            let Some(missing) = self.missing().await else {
                break Some(self.load.now());
            };
            if Instant::now() > deadline {
                let (kind, at) = (fault.kind.name(), began as f64 / 1e6);
                let kept = self.keep_pages(began).await;
                let kept = kept.map_or_else(String::new, |folder| {
                    format!("; what they said then is in {folder}")
                });
                self.remark(format!(
                    "after the {kind} at {at:.1} s the nodes were not whole again within {WHOLE_TIMEOUT:?}: {missing}{kept}"
                ));
                break None;
            }
            sleep(LOOK).await;
        };
        self.load.phase.set(None);
        if let Some(at) = whole {
            self.memory.borrow_mut().is_whole(at);
        }
        let leader = leader.filter(|leader| nodes.contains(leader));
        self.faults.borrow_mut().push(Happened {
            kind: fault.kind,
            nodes,
            leader,
            how,
            began,
            ended,
            whole,
        });
    }

    /// Does it, for as long as it lasts, and undoes it. What is to be said of it beside its kind.
    async fn hurt(&self, fault: Fault, nodes: &[usize], at: u64) -> Result<String, String> {
        let keeps = self.load.plan.own().is_some_and(|own| own.is_persistent);
        let forgets = match fault.kind {
            Kind::Kill | Kind::Restart => !keeps,
            Kind::Wipe => true,
            Kind::Pause | Kind::Partition => false,
        };
        if forgets {
            self.memory.borrow_mut().lose(nodes, at);
        }
        match fault.kind {
            Kind::Kill | Kind::Wipe => {
                for n in nodes {
                    self.with_nodes(|ours| ours.kill(*n));
                }
                self.is_over_within(fault.lasts).await;
                for n in nodes {
                    if fault.kind == Kind::Wipe {
                        self.with_nodes(|ours| ours.wipe(*n)).transpose()?;
                    }
                    self.with_nodes(|ours| ours.start(*n)).transpose()?;
                }
                Ok(String::new())
            }
            Kind::Restart => {
                for n in nodes {
                    self.with_nodes(|ours| ours.stop(*n));
                    let deadline = Instant::now() + STOP_TIMEOUT;
                    while self.with_nodes(|ours| ours.is_over(*n)) == Some(false) {
                        if Instant::now() > deadline {
                            self.remark(format!(
                                "node{} did not end within {STOP_TIMEOUT:?} and was killed",
                                n + 1
                            ));
                            self.with_nodes(|ours| ours.kill(*n));
                        }
                        sleep(LOOK / 5).await;
                    }
                    self.is_over_within(fault.lasts).await;
                    self.with_nodes(|ours| ours.start(*n)).transpose()?;
                }
                Ok(String::new())
            }
            Kind::Pause => {
                for n in nodes {
                    self.with_nodes(|ours| ours.pause(*n, true));
                }
                self.is_over_within(fault.lasts).await;
                for n in nodes {
                    self.with_nodes(|ours| ours.pause(*n, false));
                }
                Ok(String::new())
            }
            Kind::Partition => {
                let ways = ways(fault.cut, nodes, self.load.places.count());
                self.cut(ways.clone(), true).await?;
                self.is_over_within(fault.lasts).await;
                self.cut(ways, false).await?;
                Ok(fault.cut.to_string())
            }
        }
    }

    fn with_nodes<T>(&self, work: impl FnOnce(&mut Nodes) -> T) -> Option<T> {
        self.nodes.borrow_mut().as_mut().map(work)
    }

    /// Has what goes these ways be lost, or ends that.
    async fn cut(&self, ways: Vec<(usize, usize)>, is_lost: bool) -> Result<(), String> {
        let network = self.with_nodes(|nodes| nodes.network()).flatten();
        let network = network.ok_or("there is no network")?;
        // It starts a program for each, for which no client should wait.
        let done = tokio::task::spawn_blocking(move || {
            ways.iter().try_for_each(|(from, to)| {
                if is_lost {
                    network.lose(*from, *to)
                } else {
                    network.pass(*from, *to)
                }
            })
        });
        done.await.map_err(|error| error.to_string())?
    }

    /// Ends rounds, reads their keys again, and has them judged, until the run is over and quiet.
    async fn rounds(self: Rc<Self>, judge: mpsc::Sender<(u64, Vec<Event>)>) {
        let length = (self.load.plan.duration / 4).clamp(MIN_ROUND, MAX_ROUND);
        let mut ended = VecDeque::new();
        while !self.is_over_within(length).await {
            ended.push_back(self.load.turn());
            if ended.len() > LOOK_AGAIN
                && let Some(round) = ended.pop_front()
            {
                self.settle(&round, &judge).await;
            }
        }
        while !self.is_quiet.get() {
            sleep(LOOK).await;
        }
        ended.push_back(self.load.turn());
        for round in ended {
            self.settle(&round, &judge).await;
        }
    }

    async fn settle(self: &Rc<Self>, round: &Rc<Round>, judge: &mpsc::Sender<(u64, Vec<Event>)>) {
        // Each of them has a time-out.
        while round.under_way.get() > 0 {
            sleep(LOOK).await;
        }
        self.each_key(round, Self::look).await;
        let events = std::mem::take(&mut *round.events.borrow_mut());
        // It is there until all is judged; a judge that has panicked is told of at the end.
        let _ = judge.send((round.number, events)).await;
        self.each_key(round, Self::forget).await;
    }

    /// Does something about each key of a round, several at once, within some time.
    async fn each_key<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        round: &Rc<Round>,
        work: impl Fn(Rc<Self>, Rc<Round>, u64) -> F,
    ) {
        let mut lookers = JoinSet::new();
        for looker in 0..LOOKERS.min(self.load.plan.keys) {
            lookers.spawn_local(work(Rc::clone(self), Rc::clone(round), looker));
        }
        let all = async { while lookers.join_next().await.is_some() {} };
        let _ = timeout(LOOK_AGAIN_TIMEOUT, all).await;
        lookers.shutdown().await;
    }

    /// Reads the keys of this looker.
    async fn look(self: Rc<Self>, round: Rc<Round>, looker: u64) {
        let plan = &self.load.plan;
        let mut client = Client::new(plan.clients + looker, &self.load.places);
        let mut left: Vec<u64> = (looker..plan.keys).step_by(LOOKERS as usize).collect();
        self.unread.set(self.unread.get() + left.len() as u64);
        // Again and again those that nobody answers for now, until the time is over.
        while !left.is_empty() {
            let mut unread = Vec::new();
            for number in left {
                if self.load.look_again(&round, &mut client, number).await {
                    self.unread.set(self.unread.get() - 1);
                } else {
                    unread.push(number);
                }
            }
            left = unread;
            sleep(RETRY).await;
        }
    }

    /// Removes them.
    async fn forget(self: Rc<Self>, round: Rc<Round>, looker: u64) {
        let plan = &self.load.plan;
        let mut client = Client::new(plan.clients + looker, &self.load.places);
        for number in (looker..plan.keys).step_by(LOOKERS as usize) {
            self.load.remove(&round, &mut client, number).await;
        }
    }

    /// Keeps a node's cache full.
    async fn fill(self: Rc<Self>, n: usize) {
        let plan = &self.load.plan;
        let mut random = bench::Random::new(plan.seed, (2 << 32) + n as u64);
        let mut connection = None;
        while !self.load.is_over.get() {
            sleep(FILL_PAUSE).await;
            let key = format!(
                "verify-{:08x}-fill-{}",
                self.load.run,
                random.below(FILL_KEYS)
            );
            let mut open = match connection.take() {
                Some(open) => open,
                None => match self.load.places.connect(n, CONNECT_TIMEOUT).await {
                    Ok(open) => open,
                    Err(_) => continue,
                },
            };
            let asked = Asked::Write {
                value: 0,
                when: Condition::Always,
            };
            let told = open
                .ask(asked, &key, plan.level, FILL_SIZE, plan.timeout)
                .await;
            if matches!(told, Told::Answered(_)) {
                connection = Some(open);
            }
        }
    }

    /// Looks at the nodes, for as long as the run lasts.
    async fn watch(self: Rc<Self>) {
        let mut looks = 0_u32;
        loop {
            sleep(LOOK).await;
            while let Some((n, status)) = self.with_nodes(Nodes::ended).flatten() {
                self.has_ended(n, &status.to_string());
            }
            looks += 1;
            if looks.is_multiple_of((WATCH.as_millis() / LOOK.as_millis()) as u32) {
                self.look_at_evictions().await;
            }
        }
    }

    /// A node has ended that nobody has ended: it is started again, and told of.
    fn has_ended(&self, n: usize, status: &str) {
        let at = self.load.now();
        let keeps = self.load.plan.own().is_some_and(|own| own.is_persistent);
        if !keeps {
            self.memory.borrow_mut().lose(&[n], at);
        }
        let told = self.with_nodes(|nodes| {
            nodes.keep();
            let last = nodes.last_words(n);
            let started = nodes.start(n).err().unwrap_or_default();
            format!(
                "node{} ended by itself at {:.1} s: {status}: {last}{started}",
                n + 1,
                at as f64 / 1e6
            )
        });
        let mut ended = self.ended.borrow_mut();
        if ended.len() < MOST_ENDS {
            ended.extend(told);
        }
    }

    /// Asks all nodes what they have evicted. A count that is less than before is that of another life.
    async fn look_at_evictions(&self) {
        for n in 0..self.load.places.count() {
            if !self.may_be_asked(n) {
                continue;
            }
            let Some(page) = self.page(n, "/stats").await else {
                continue;
            };
            let causes = page["evictions"].as_object();
            let counts =
                causes.map(|causes| causes.values().filter_map(Value::as_u64).sum::<u64>());
            let mut evictions = self.evictions.borrow_mut();
            let (last, before) = &mut evictions[n];
            if let Some(now) = counts {
                if now < *last {
                    *before += *last;
                }
                *last = now;
            }
        }
    }

    /// What all nodes say is lost, as soon as they say so much as was found here, and for as long as that may take them.
    async fn reported_losses(&self, findings: &Findings) -> Option<Reported> {
        let deadline = Instant::now() + REPORT_TIMEOUT;
        let mut reported = None;
        loop {
            for n in 0..self.load.places.count() {
                if self.may_be_asked(n)
                    && let Some(page) = self.page(n, "/cluster/losses").await
                {
                    reported = Reported::of(&page).or(reported);
                    break;
                }
            }
            let is_enough = reported.as_ref().is_some_and(|reported| {
                let mut versions = findings.losses.iter();
                reported.is_complete
                    && versions.all(|loss| {
                        let version = loss.version;
                        version.is_none_or(|version| reported.may_have(loss.partition, version))
                    })
            });
            if is_enough || Instant::now() > deadline {
                return reported;
            }
            sleep(LOOK).await;
        }
    }

    fn outcome(self, findings: Findings, lasted: u64, reported: Option<Reported>) -> Outcome {
        let mut kept = None;
        let evictions = self
            .evictions
            .borrow()
            .iter()
            .map(|(now, before)| now + before)
            .sum();
        let mut outcome = Outcome {
            load: self.load,
            faults: self.faults.into_inner(),
            findings,
            lasted,
            memory: self.memory.into_inner(),
            evictions,
            ended: self.ended.into_inner(),
            unread: self.unread.get(),
            reported,
            remarks: self.remarks.into_inner(),
            kept: None,
        };
        if let Some(mut nodes) = self.nodes.into_inner()
            && (!outcome.is_good() || nodes.keeps())
        {
            nodes.keep();
            kept = Some(nodes.directory().display().to_string());
        }
        outcome.kept = kept;
        outcome
    }
}

/// The ways between nodes that a cut is about, each from one to another.
fn ways(cut: Cut, nodes: &[usize], count: usize) -> Vec<(usize, usize)> {
    let others: Vec<usize> = (0..count).filter(|n| !nodes.contains(n)).collect();
    let mut ways = Vec::new();
    let other_count = if cut == Cut::Pair { 1 } else { others.len() };
    for n in nodes {
        for other in &others[..other_count.min(others.len())] {
            if cut != Cut::Deaf {
                ways.push((*n, *other));
            }
            if cut != Cut::Mute {
                ways.push((*other, *n));
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_without_memory_excuses() {
        let mut memory = Memory::new(3);
        memory.lose(&[0], 10);
        assert!(!memory.excuses(0, 100), "one of three");
        memory.is_whole(20);
        memory.lose(&[1], 30);
        memory.lose(&[2], 40);
        assert!(memory.excuses(35, 1_000), "it goes on");
        memory.is_whole(50);
        assert_eq!(memory.lost, [(40, 50)]);
        for (asked, missed, is_excused) in [
            (0, 39, false),
            (0, 40, true),
            (50, 60, true),
            (51, 60, false),
        ] {
            assert_eq!(
                memory.excuses(asked, missed),
                is_excused,
                "{asked} {missed}"
            );
        }
        let mut alone = Memory::new(1);
        alone.lose(&[2], 5);
        assert!(alone.excuses(0, 5), "the only replica");
    }

    #[test]
    fn ways_that_are_cut() {
        assert_eq!(ways(Cut::Off, &[1], 3), [(1, 0), (0, 1), (1, 2), (2, 1)]);
        assert_eq!(ways(Cut::Deaf, &[1], 3), [(0, 1), (2, 1)]);
        assert_eq!(ways(Cut::Mute, &[0, 1], 3), [(0, 2), (1, 2)]);
        assert_eq!(ways(Cut::Pair, &[2], 3), [(2, 0), (0, 2)]);
        assert_eq!(ways(Cut::Off, &[0, 1], 2), []);
    }
}
