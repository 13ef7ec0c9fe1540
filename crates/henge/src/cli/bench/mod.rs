//! `henge bench`: a load on a server, of Henge or of any that speaks the Redis protocol, and what it does to latency. This
//! file starts the threads, shows how far they are, and ends them; `load` is what they do, `report` and `html` what is made of
//! it.

mod distribution;
mod html;
mod load;
mod options;
mod report;
mod tally;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, watch};

use load::{Phase, Plan, Progress, Times, Worker};
use report::Report;
use tally::Tally;

use super::{api_key, tls};
use crate::config::shown;

pub(super) use distribution::Random;
pub use options::Options;
pub(super) use options::{command, understood};
pub(super) use report::{duration, grouped};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Measures, and reports on standard output and in the files that were asked for.
pub(super) fn run(options: &Options) -> ExitCode {
    let done = measure(options).and_then(|(tally, measured)| {
        let report = Report {
            options,
            tally: &tally,
            measured,
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(report.text().as_bytes());
        match written.and_then(|()| out.flush()) {
            // Whoever closed standard output does not want to read it; the files may still be wanted.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(format!("standard output cannot be written: {error}"));
            }
            _ => {}
        }
        if let Some(file) = &options.json {
            save(file, &report.json())?;
        }
        if let Some(file) = &options.html {
            save(file, &report.html())?;
        }
        if report.tally.all().answered() == 0 {
            return Err("nothing was answered".to_owned());
        }
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            let _ = writeln!(io::stderr(), "henge: {line}");
            ExitCode::FAILURE
        }
    }
}

fn save(file: &Path, document: &str) -> Result<(), String> {
    fs::write(file, document).map_err(|error| format!("{} cannot be written: {error}", shown(file)))
}

/// Runs the load. What was found, and how long it was measured.
fn measure(options: &Options) -> Result<(Tally, Duration), String> {
    let key = api_key::of_environment().map_err(|error| error.to_string())?;
    let tls = tls::towards(&options.target).map_err(|error| error.to_string())?;
    let plan = Arc::new(Plan::new(options.clone(), key, tls));
    let progress: Vec<Arc<Progress>> = (0..options.threads).map(|_| Arc::default()).collect();
    let (phase, phases) = watch::channel(Phase::Prepare);
    let (prepared, preparations) = mpsc::unbounded_channel();
    let mut threads = Vec::new();
    for (number, progress) in progress.iter().enumerate() {
        let worker = Worker {
            plan: Arc::clone(&plan),
            number,
            phase: phases.clone(),
            progress: Arc::clone(progress),
            prepared: prepared.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("bench-{number}"))
            .spawn(move || worker.run());
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                phase.send_replace(Phase::Stop);
                return Err(format!("a thread does not start: {error}"));
            }
        }
    }
    // Those of the threads remain, and all are gone when no thread is left.
    drop((prepared, phases));
    let conductor = Conductor {
        options,
        progress: &progress,
        threads: &threads,
        phase: &phase,
        bar: bar(),
    };
    let measured = conductor.conduct(preparations);
    phase.send_replace(Phase::Stop);
    let mut tally = Tally::new(options.duration);
    for thread in threads {
        let found = thread.join().map_err(|_| "a thread of the load panicked")?;
        tally.add(found?);
    }
    Ok((tally, measured?))
}

/// A bar on a terminal, and none elsewhere.
pub(super) fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{prefix:<8} [{bar:30}] {percent:>3}%  {msg}");
    bar.set_style(style.expect("the template is right").progress_chars("=> "));
    bar
}

/// Takes a run through its phases.
struct Conductor<'a> {
    options: &'a Options,
    progress: &'a [Arc<Progress>],
    threads: &'a [JoinHandle<Result<Tally, String>>],
    phase: &'a watch::Sender<Phase>,
    bar: ProgressBar,
}

impl Conductor<'_> {
    /// How long it was measured.
    fn conduct(&self, preparations: mpsc::UnboundedReceiver<()>) -> Result<Duration, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime does not start: {error}"))?;
        let began_to_measure = runtime.block_on(async {
            tokio::select! {
                // First the signal: from the first request on, it ends the run and not the process.
                biased;
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted.map(|()| None).map_err(|error| format!("no signal can be awaited: {error}"))
                }
                measured = self.prepare_and_run(preparations) => measured,
            }
        });
        self.bar.finish_and_clear();
        let options = self.options;
        match (began_to_measure?, *self.phase.borrow()) {
            (Some(()), _) => Ok(options.duration),
            (None, Phase::Run(times)) => {
                Ok(Instant::now().saturating_duration_since(times.measured))
            }
            (None, _) => Ok(Duration::ZERO),
        }
    }

    async fn prepare_and_run(
        &self,
        mut preparations: mpsc::UnboundedReceiver<()>,
    ) -> Result<Option<()>, String> {
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let mut waiting = self.options.threads;
        while waiting > 0 {
            tokio::select! {
                prepared = preparations.recv() => match prepared {
                    Some(()) => waiting -= 1,
                    None => return Ok(None),
                },
                _ = tick.tick() => {
                    // None ends before it was told to run, except by an error, which joining it will tell.
                    if self.threads.iter().any(JoinHandle::is_finished) {
                        return Ok(None);
                    }
                    self.show_loading();
                }
            }
        }
        let start = Instant::now();
        let measured = start + self.options.warmup;
        let end = measured + self.options.duration;
        let times = Times {
            start,
            measured,
            end,
        };
        self.phase.send_replace(Phase::Run(times));
        loop {
            tokio::select! {
                // Only an end can come: all threads have answered what was in flight.
                _ = preparations.recv() => return Ok(Some(())),
                _ = tick.tick() => self.show_running(times),
            }
        }
    }

    fn sum(&self, figure: impl Fn(&Progress) -> u64) -> u64 {
        self.progress.iter().map(|progress| figure(progress)).sum()
    }

    fn show_loading(&self) {
        let loaded = self.sum(|progress| progress.loaded.load(Ordering::Relaxed));
        self.bar.set_prefix("loading");
        self.bar.set_length(self.options.keys);
        self.bar.set_position(loaded);
        self.bar.set_message(format!("{loaded} keys"));
    }

    fn show_running(&self, times: Times) {
        let done = self.sum(|progress| progress.done.load(Ordering::Relaxed));
        let errors = self.sum(|progress| progress.errors.load(Ordering::Relaxed));
        let now = Instant::now();
        let (prefix, from, to) = if now < times.measured {
            ("warm-up", times.start, times.measured)
        } else {
            ("measure", times.measured, times.end)
        };
        self.bar.set_prefix(prefix);
        self.bar.set_length((to - from).as_millis() as u64);
        self.bar
            .set_position(now.duration_since(from).as_millis() as u64);
        let rate = done as f64 / now.duration_since(times.start).as_secs_f64().max(1e-3);
        let errors = match errors {
            0 => String::new(),
            many => format!(", {many} errors"),
        };
        self.bar
            .set_message(format!("{} ops/s{errors}", report::grouped(rate)));
    }
}
