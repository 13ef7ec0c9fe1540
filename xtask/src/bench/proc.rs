//! What Linux says about another process, and which CPU a process runs on. The benches run nowhere else.

use super::Result;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;

/// CPU time of a process and all of its threads, in seconds since it started: user and system. The kernel scales the two
/// from the scheduler's nanoseconds, so their sum is exact to a tick.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let ticks = parse_cpu_ticks(&fs::read_to_string(&path)?)
        .ok_or_else(|| format!("{path} is not as proc(5) says"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of the threads of a process whose names begin so, in seconds since they started.
pub(super) fn thread_cpu_seconds(pid: u32, name: &str) -> Result<f64> {
    schedstat_seconds(pid, name, 0)
}

/// How long these threads could have run and others had the CPU, in seconds since they started.
pub(super) fn thread_wait_seconds(pid: u32, name: &str) -> Result<f64> {
    schedstat_seconds(pid, name, 1)
}

/// The sum of one field of what the scheduler says of threads, in nanoseconds.
fn schedstat_seconds(pid: u32, name: &str, field: usize) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // One that ends meanwhile is none of those that work.
        let Ok(own) = fs::read_to_string(thread.join("comm")) else {
            continue;
        };
        if own.starts_with(name) {
            let text = fs::read_to_string(thread.join("schedstat"))?;
            let found = text.split_ascii_whitespace().nth(field);
            nanoseconds += found.unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The resident size of a process, now and at its peak, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rss {
    pub(super) now: u64,
    pub(super) peak: u64,
}

/// Reads the resident size. The kernel keeps the peak, so no sampling can miss it.
pub(super) fn rss(pid: u32) -> Result<Rss> {
    let path = format!("/proc/{pid}/status");
    parse_rss(&fs::read_to_string(&path)?)
        .ok_or_else(|| format!("{path} is not as proc(5) says").into())
}

/// Has the kernel begin anew with the peak (`proc_pid_clear_refs(5)`).
pub(super) fn reset_peak(pid: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// User and system ticks: fields 14 and 15, counted past the name, which may hold anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_rss(status: &str) -> Option<Rss> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Rss {
        now: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// The two CPUs of a bench: one for the server alone, one for the load.
#[derive(Clone, Copy)]
pub(super) struct Cpus {
    pub(super) server: usize,
    pub(super) load: usize,
}

impl Cpus {
    /// The first two that this process may use.
    pub(super) fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        match (cpus.next(), cpus.next()) {
            (Some(server), Some(load)) => Ok(Self { server, load }),
            _ => Err("two CPUs are needed, one for the server and one for the load".into()),
        }
    }
}

/// Binds this thread, and the processes that it starts from now on, to one CPU.
pub(super) fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Takes the binding of a process back, which it got at its start: each of its threads may use every CPU that there is.
pub(super) fn unpin(pid: u32) -> Result<()> {
    let all = all_cpus();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name();
        let thread = thread.to_string_lossy().parse::<i32>()?;
        // One that has ended meanwhile is bound to nothing.
        let _ = sched_setaffinity(Pid::from_raw(thread), &all);
    }
    Ok(())
}

/// Takes a binding back: this thread, and what it starts, may use every CPU that there is.
pub(super) fn pin_to_any() -> Result<()> {
    Ok(sched_setaffinity(None, &all_cpus())?)
}

/// The kernel leaves out those that are not there, or not allowed.
fn all_cpus() -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in 0..CpuSet::MAX_CPU {
        set.set(cpu);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_parsed() {
        let stat = "7 (a) b) S 1 2 3 0 -1 4194304 99 0 0 0 170 23 9 9 20 0 5 0 259444 3133440 407 18446744073709551615";
        assert_eq!(parse_cpu_ticks(stat), Some(193));
        assert_eq!(parse_cpu_ticks("7 (a) S 1 2"), None);
        let status = "Name:\thenge\nVmHWM:\t    5000 kB\nVmRSS:\t    4000 kB\nThreads:\t1\n";
        let expected = Rss {
            now: 4_096_000,
            peak: 5_120_000,
        };
        assert_eq!(parse_rss(status), Some(expected));
        assert_eq!(parse_rss("VmRSS: 5 kB\n"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let pid = std::process::id();
        let rss = rss(pid).expect("Linux has /proc");
        assert!(rss.now > 0);
        assert!(cpu_seconds(pid).expect("Linux has /proc") >= 0.0);
    }
}
