//! The load: a thread with a runtime of its own, and on it connections that each send a request or a pipeline, wait for the
//! answers, and go on. In a closed loop the next is due when the last is answered; in an open one at fixed times, and what
//! comes late is counted from when it was due, so that a stall of the server is felt by all whom it kept waiting.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_client::{Answer, ApiKey, Connection, Error, Request, SetOptions, Settings, Tls};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::distribution::{Keys, Random, Values, name};
use super::options::Options;
use super::tally::Tally;

/// After a connection could not be made, so that a server that is down is not asked without a pause.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// tokio's timers count in milliseconds and round up; what is nearer than this is waited for by looking at the clock.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What the threads are to do now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Connect, and write the keys.
    Prepare,
    Run(Times),
    /// Leave everything as it is.
    Stop,
}

/// When a run begins, when it begins to be measured, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Instant,
    pub(super) measured: Instant,
    pub(super) end: Instant,
}

/// How far a thread is, for the progress bar.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) loaded: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// What all threads have in common.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) options: Options,
    keys: Keys,
    values: Values,
    api_key: Option<ApiKey>,
    tls: Option<Tls>,
}

impl Plan {
    pub(super) fn new(options: Options, api_key: Option<ApiKey>, tls: Option<Tls>) -> Self {
        let keys = if options.is_zipf {
            Keys::zipf(options.keys)
        } else {
            Keys::Uniform(options.keys)
        };
        let values = Values::new(options.size, options.seed);
        Self {
            options,
            keys,
            values,
            api_key,
            tls,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            connect_timeout: self.options.timeout,
            request_timeout: self.options.timeout,
            api_key: self.api_key.clone(),
            tls: self.tls.clone(),
            ..Settings::default()
        }
    }
}

/// What a thread gets.
pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    /// Its number, from 0.
    pub(super) number: usize,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) progress: Arc<Progress>,
    /// Told once, when it is prepared.
    pub(super) prepared: mpsc::UnboundedSender<()>,
}

impl Worker {
    /// Connects, writes its share of the keys, runs, and answers with what it found.
    pub(super) fn run(self) -> Result<Tally, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(|error| format!("the runtime does not start: {error}"))?;
        runtime.block_on(self.prepare_and_run())
    }

    async fn prepare_and_run(mut self) -> Result<Tally, String> {
        let options = &self.plan.options;
        let tally = Rc::new(RefCell::new(Tally::new(options.duration)));
        let mut phase = self.phase.clone();
        // Dropping it wherever it stands is how a run is left.
        let prepared = tokio::select! {
            prepared = self.prepare(&tally) => prepared?,
            () = stopped(&mut phase) => return Ok(take(tally)),
        };
        let _ = self.prepared.send(());
        let times = loop {
            match *self.phase.borrow_and_update() {
                Phase::Prepare => {}
                Phase::Run(times) => break times,
                Phase::Stop => return Ok(take(tally)),
            }
            if self.phase.changed().await.is_err() {
                return Ok(take(tally));
            }
        };
        let mut lanes = JoinSet::new();
        for mut lane in prepared {
            lanes.spawn_local(async move { lane.run(times).await });
        }
        tokio::select! {
            () = async { while lanes.join_next().await.is_some() {} } => {}
            () = stopped(&mut phase) => lanes.shutdown().await,
        }
        Ok(take(tally))
    }

    /// The lanes of this thread, connected, after they have written their keys.
    async fn prepare(&self, tally: &Rc<RefCell<Tally>>) -> Result<Vec<Lane>, String> {
        let options = &self.plan.options;
        let mut tasks = JoinSet::new();
        for number in (self.number..options.connections).step_by(options.threads) {
            let mut lane = Lane {
                plan: Arc::clone(&self.plan),
                progress: Arc::clone(&self.progress),
                tally: Rc::clone(tally),
                number: number as u64,
                random: Random::new(options.seed, number as u64),
                connection: None,
            };
            tasks.spawn_local(async move {
                lane.connect().await?;
                if lane.plan.options.load {
                    lane.load().await?;
                }
                Ok::<_, Error>(lane)
            });
        }
        let mut lanes = Vec::new();
        while let Some(lane) = tasks.join_next().await {
            let lane = lane.map_err(|error| format!("a connection's task ended: {error}"))?;
            lanes.push(lane.map_err(|error| error.to_string())?);
        }
        Ok(lanes)
    }
}

/// What was tallied. Tasks that were dropped may still hold it.
fn take(tally: Rc<RefCell<Tally>>) -> Tally {
    match Rc::try_unwrap(tally) {
        Ok(tally) => tally.into_inner(),
        Err(shared) => shared.borrow().clone(),
    }
}

/// Waits until the run is to stop.
async fn stopped(phase: &mut watch::Receiver<Phase>) {
    // An error means that nobody is there any more to say so.
    let _ = phase.wait_for(|phase| matches!(phase, Phase::Stop)).await;
}

/// A connection and what it sends.
struct Lane {
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    tally: Rc<RefCell<Tally>>,
    /// Among all of all threads, from 0.
    number: u64,
    random: Random,
    /// None after an error.
    connection: Option<Connection>,
}

/// A request that is due.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    is_read: bool,
    key: u64,
    name: [u8; 16],
}

impl Lane {
    async fn connect(&mut self) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.plan.options.target, self.plan.settings()).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Writes its share of the keys, several at once. Any error ends the run: what it would measure is not what was asked for.
    async fn load(&mut self) -> Result<(), Error> {
        /// Enough to hide the network, and little memory.
        const AT_ONCE: usize = 16;
        let plan = Arc::clone(&self.plan);
        let progress = Arc::clone(&self.progress);
        let mut mine = (self.number..plan.options.keys).step_by(plan.options.connections);
        let connection = self.connect().await?;
        loop {
            let keys: Vec<u64> = mine.by_ref().take(AT_ONCE).collect();
            if keys.is_empty() {
                return Ok(());
            }
            let names: Vec<[u8; 16]> = keys.iter().map(|key| name(*key)).collect();
            let requests: Vec<Request<'_>> = keys
                .iter()
                .zip(&names)
                .map(|(key, name)| write(&plan.values, *key, name))
                .collect();
            let mut refused = None;
            connection
                .pipeline(&requests, |_, answer| match answer {
                    Ok(_) => drop(progress.loaded.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => refused = Some(error),
                })
                .await?;
            if let Some(error) = refused {
                return Err(error);
            }
        }
    }

    async fn run(&mut self, times: Times) {
        let Some(rate) = self.plan.options.rate else {
            return self.run_closed(times).await;
        };
        // A schedule for each part: what the warm-up could not send would otherwise be all that is sent while it is measured.
        self.run_open(rate, times.start, times.measured, times)
            .await;
        let unsent = self.run_open(rate, times.measured, times.end, times).await;
        self.tally.borrow_mut().unsent += unsent;
    }

    /// Sends the next when the last is answered, to the end.
    async fn run_closed(&mut self, times: Times) {
        let pipeline = self.plan.options.pipeline;
        let mut batch = Vec::with_capacity(pipeline);
        loop {
            let now = Instant::now();
            if now >= times.end {
                return;
            }
            batch.clear();
            batch.extend((0..pipeline).map(|_| self.due(now)));
            self.send(&batch, times).await;
        }
    }

    /// Sends by the clock what is due in a part of the time. How much of it could not be sent before its end.
    async fn run_open(&mut self, rate: u64, start: Instant, end: Instant, times: Times) -> u64 {
        let options = &self.plan.options;
        let pipeline = options.pipeline;
        let schedule = Schedule {
            start,
            rate,
            lanes: options.connections as u64,
            lane: self.number,
        };
        let count = schedule.count_before(end);
        let mut next = 0;
        let mut batch = Vec::with_capacity(pipeline);
        // When the connection was last answered.
        let mut free = start;
        while next < count && Instant::now() < end {
            let due = schedule.at(next);
            until(due).await;
            let now = Instant::now();
            if due >= times.measured {
                let lag = now.saturating_duration_since(due.max(free));
                self.tally.borrow_mut().lag(lag);
            }
            batch.clear();
            while batch.len() < pipeline && next < count && schedule.at(next) <= now {
                batch.push(self.due(schedule.at(next)));
                next += 1;
            }
            self.send(&batch, times).await;
            free = Instant::now();
        }
        count - next
    }

    fn due(&mut self, at: Instant) -> Due {
        let key = self.plan.keys.next(&mut self.random);
        Due {
            at,
            is_read: self.random.fraction() < self.plan.options.read,
            key,
            name: name(key),
        }
    }

    /// Sends what is due, and counts what comes of it. What was due before the measured time is not counted.
    async fn send(&mut self, batch: &[Due], times: Times) {
        let plan = Arc::clone(&self.plan);
        let progress = Arc::clone(&self.progress);
        let tally = Rc::clone(&self.tally);
        let is_counted = |due: &Due| due.at >= times.measured;
        let fail = |dues: &[Due], error: &Error| {
            progress
                .errors
                .fetch_add(dues.len() as u64, Ordering::Relaxed);
            let mut tally = tally.borrow_mut();
            for due in dues.iter().filter(|due| is_counted(due)) {
                tally.errors(due.is_read, 1, || error.to_string());
            }
        };
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => {
                fail(batch, &error);
                let pause = Instant::now() + RECONNECT_PAUSE;
                tokio::time::sleep_until(pause.min(times.end).into()).await;
                return;
            }
        };
        let requests: Vec<Request<'_>> = batch
            .iter()
            .map(|due| {
                if due.is_read {
                    Request::Get { key: &due.name }
                } else {
                    write(&plan.values, due.key, &due.name)
                }
            })
            .collect();
        let mut answered = 0;
        let done = connection
            .pipeline(&requests, |place, answer| {
                answered = place + 1;
                let due = &batch[place];
                match answer {
                    Ok(answer) => {
                        progress.done.fetch_add(1, Ordering::Relaxed);
                        if is_counted(due) {
                            let now = Instant::now();
                            let is_hit = matches!(answer, Answer::Value(Some(_)));
                            let latency = now.duration_since(due.at);
                            let at = now.duration_since(times.measured);
                            tally.borrow_mut().answer(due.is_read, is_hit, latency, at);
                        }
                    }
                    Err(error) => fail(std::slice::from_ref(due), &error),
                }
            })
            .await;
        if let Err(error) = done {
            fail(&batch[answered..], &error);
            self.connection = None;
        }
    }
}

fn write<'a>(values: &'a Values, key: u64, name: &'a [u8; 16]) -> Request<'a> {
    Request::Set {
        key: name,
        value: values.of(key),
        options: SetOptions::NONE,
    }
}

/// The times at which the requests of one lane are due; the lanes take turns.
struct Schedule {
    start: Instant,
    rate: u64,
    lanes: u64,
    lane: u64,
}

impl Schedule {
    fn at(&self, request: u64) -> Instant {
        let number = u128::from(request) * u128::from(self.lanes) + u128::from(self.lane);
        // A year at the highest rate is 10^24 nanoseconds, far within 128 bits; what leaves 64 bits is after every end.
        let ns = number * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX / 2))
    }

    /// How many requests are due before a time.
    fn count_before(&self, end: Instant) -> u64 {
        let ns = end.saturating_duration_since(self.start).as_nanos();
        // Those of all lanes, numbered from 0, whose time is less than that.
        let all = (ns * u128::from(self.rate)).div_ceil(1_000_000_000);
        let of_lane = (all + u128::from(self.lanes - 1 - self.lane)) / u128::from(self.lanes);
        u64::try_from(of_lane).unwrap_or(u64::MAX)
    }
}

/// Waits until a time, more exactly than a timer does. Other connections go on meanwhile.
async fn until(due: Instant) {
    if let Some(early) = due.checked_sub(TIMER_GRAIN)
        && early > Instant::now()
    {
        tokio::time::sleep_until(early.into()).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_take_turns_at_the_rate() {
        let start = Instant::now();
        for (rate, lanes) in [(1, 1), (3, 2), (1000, 7), (1_000_000, 50)] {
            let end = start + Duration::from_secs(2);
            let mut times = Vec::new();
            for lane in 0..lanes {
                let schedule = Schedule {
                    start,
                    rate,
                    lanes,
                    lane,
                };
                let of_lane: Vec<Instant> = (0..=2 * rate)
                    .map(|i| schedule.at(i))
                    .take_while(|at| *at < end)
                    .collect();
                assert_eq!(
                    schedule.count_before(end),
                    of_lane.len() as u64,
                    "{rate} {lanes}"
                );
                times.extend(of_lane);
            }
            times.sort_unstable();
            assert_eq!(times.len() as u64, rate * 2, "{rate} a second over {lanes}");
            for (number, at) in (0..).zip(times) {
                let expected = Duration::from_nanos(number * 1_000_000_000 / rate);
                assert_eq!(at - start, expected);
            }
        }
    }
}
