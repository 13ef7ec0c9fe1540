//! From what was found to what is to be said of it: whether it is as it should be, what that is, and what to change. Everything it goes by
//! is an argument; it looks at nothing itself.

use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;

use super::facts::{ClockBounds, Known, Owner, Place, Space, Speed, Swap};
use crate::cli::simulate::grouped;
use crate::config::SyncPolicy;

/// How something is; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It could not be found out.
    Unknown,
    Warn,
    Bad,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What is said of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) expected: String,
    /// What to change; none where all is well.
    pub(super) change: Option<String>,
}

impl Check {
    pub(super) fn new(
        name: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
        expected: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        let change = matches!(verdict, Verdict::Warn | Verdict::Bad).then(|| change.into());
        Self {
            name: name.into(),
            verdict,
            found: found.into(),
            expected: expected.into(),
            change,
        }
    }

    fn unknown(name: &str, why: &str, expected: impl Into<String>) -> Self {
        Self::new(name, Verdict::Unknown, why, expected, "")
    }
}

/// What a node needs of handles beside those of clients: its log, its peers, what its runtimes wait by.
const HANDLES_BESIDE: u64 = 512;
/// With fewer than this a node hardly serves anybody.
const FEWEST_HANDLES: u64 = 1_024;

/// The most handles that the process may have; none is without a limit. A node raises its soft limit to the hard one itself.
pub(super) fn open_files(hard: Option<u64>, max_connections: u64) -> Check {
    let needed = max_connections.saturating_add(HANDLES_BESIDE);
    let verdict = match hard {
        None => Verdict::Ok,
        Some(hard) if hard >= needed => Verdict::Ok,
        Some(hard) if hard < FEWEST_HANDLES.min(needed) => Verdict::Bad,
        Some(_) => Verdict::Warn,
    };
    Check::new(
        "open files",
        verdict,
        hard.map_or("no limit".to_owned(), |hard| {
            format!("{} at most", grouped(hard))
        }),
        format!(
            "{}: limits.max_connections is {}, and {HANDLES_BESIDE} beside them",
            grouped(needed),
            grouped(max_connections)
        ),
        format!(
            "LimitNOFILE={needed} in the unit, or ulimit -Hn {needed}; or a lower limits.max_connections"
        ),
    )
}

/// The line of the kernel, with the choice that holds in brackets.
pub(super) fn huge_pages(line: &Known<String>) -> Check {
    const NAME: &str = "transparent huge pages";
    const EXPECTED: &str =
        "any: the memory of a node asks for none, and takes none where they are given unasked";
    match line {
        Err(why) => Check::unknown(NAME, why, EXPECTED),
        Ok(line) => {
            let chosen = line.split(['[', ']']).nth(1).unwrap_or(line);
            Check::new(NAME, Verdict::Ok, chosen, EXPECTED, "")
        }
    }
}

/// `vm.overcommit_memory`
pub(super) fn overcommit(mode: &Known<u64>) -> Check {
    const NAME: &str = "vm.overcommit_memory";
    const EXPECTED: &str = "0 or 1: the allocator reserves more addresses than it uses memory";
    match mode {
        Err(why) => Check::unknown(NAME, why, EXPECTED),
        Ok(mode) => Check::new(
            NAME,
            if *mode == 2 {
                Verdict::Warn
            } else {
                Verdict::Ok
            },
            mode.to_string(),
            EXPECTED,
            "sysctl vm.overcommit_memory=0",
        ),
    }
}

/// Above this the system swaps what is in use to keep files cached.
const HIGHEST_SWAPPINESS: u64 = 10;

pub(super) fn swap(swap: &Known<Swap>) -> Check {
    const NAME: &str = "swap";
    const EXPECTED: &str =
        "none, or vm.swappiness of at most 10: an item in swap is read at the speed of a disk";
    match swap {
        Err(why) => Check::unknown(NAME, why, EXPECTED),
        Ok(Swap { total_bytes: 0, .. }) => Check::new(NAME, Verdict::Ok, "none", EXPECTED, ""),
        Ok(swap) => Check::new(
            NAME,
            if swap.swappiness > HIGHEST_SWAPPINESS {
                Verdict::Warn
            } else {
                Verdict::Ok
            },
            format!(
                "{}, vm.swappiness {}",
                HumanBytes(swap.total_bytes),
                swap.swappiness
            ),
            EXPECTED,
            "swapoff -a, or sysctl vm.swappiness=1",
        ),
    }
}

/// How large the cache may become, beside the smallest limit of memory and whose that is.
pub(super) fn memory(size_bytes: u64, limit: &Known<(u64, &str)>) -> Check {
    const NAME: &str = "memory";
    let expected = |limit: u64| {
        format!(
            "cache.max_size_bytes of at most {}, three quarters of the limit: the rest is for connections, what is in flight, and the system",
            HumanBytes(limit / 4 * 3)
        )
    };
    match limit {
        Err(why) => Check::unknown(NAME, why, expected(0)),
        Ok((limit, source)) => Check::new(
            NAME,
            match size_bytes {
                size if size <= limit / 4 * 3 => Verdict::Ok,
                size if size <= limit / 10 * 9 => Verdict::Warn,
                _ => Verdict::Bad,
            },
            format!(
                "cache.max_size_bytes is {} of the {} of the {source}",
                HumanBytes(size_bytes),
                HumanBytes(*limit)
            ),
            expected(*limit),
            "a lower cache.max_size_bytes, or more memory",
        ),
    }
}

/// `net.core.somaxconn` beside the backlog that a node asks for.
pub(super) fn backlog(most: &Known<u64>, asked: u64) -> Check {
    const NAME: &str = "net.core.somaxconn";
    let expected = format!(
        "{}: as many connections may wait to be taken",
        grouped(asked)
    );
    match most {
        Err(why) => Check::unknown(NAME, why, expected),
        Ok(most) => Check::new(
            NAME,
            if *most < asked {
                Verdict::Warn
            } else {
                Verdict::Ok
            },
            grouped(*most),
            expected,
            format!("sysctl net.core.somaxconn={asked}"),
        ),
    }
}

/// Those that are read without a call of the system.
const QUICK_CLOCKS: [&str; 4] = [
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
];

pub(super) fn clock_source(source: &Known<String>) -> Check {
    const NAME: &str = "clock source";
    let expected = format!(
        "one that is read without a call of the system: {}",
        QUICK_CLOCKS.join(", ")
    );
    match source {
        Err(why) => Check::unknown(NAME, why, expected),
        Ok(source) => Check::new(
            NAME,
            if QUICK_CLOCKS.contains(&&**source) {
                Verdict::Ok
            } else {
                Verdict::Warn
            },
            source.clone(),
            expected,
            "another of available_clocksource in /sys/devices/system/clocksource/clocksource0, if there is a better one; requests read the time",
        ),
    }
}

/// The directory in which the data of nodes lie.
pub(super) fn place(place: &Known<Place>) -> Check {
    const NAME: &str = "persistence.dir";
    const EXPECTED: &str = "a directory that is there or can be made, which this user owns and may write to, and nobody else";
    let place = match place {
        Err(why) => {
            return Check::new(
                NAME,
                Verdict::Bad,
                why.clone(),
                EXPECTED,
                "see that it can be made and written to, or another persistence.dir",
            );
        }
        Ok(place) => place,
    };
    let path = &place.path;
    let (verdict, found, change) = if let Some(why) = &place.not_writable {
        (
            Verdict::Bad,
            format!("{path} cannot be written to: {why}"),
            "chown it to the user that the node runs as".to_owned(),
        )
    } else if !place.is_there {
        (
            Verdict::Ok,
            format!("{path} is not there, and can be made"),
            String::new(),
        )
    } else if !place.is_ours {
        (
            Verdict::Warn,
            format!("{path} belongs to another user"),
            "chown it to the user that the node runs as".to_owned(),
        )
    } else if place.mode & 0o022 != 0 {
        (
            Verdict::Warn,
            format!("others may write to {path} (mode {:04o})", place.mode),
            format!("chmod go-w {path}"),
        )
    } else {
        (
            Verdict::Ok,
            format!("{path}, mode {:04o}", place.mode),
            String::new(),
        )
    };
    Check::new(NAME, verdict, found, EXPECTED, change)
}

/// How long syncs took, beside when they are waited for.
pub(super) fn disk_speed(speed: &Known<Speed>, sync: SyncPolicy, interval: Duration) -> Check {
    const NAME: &str = "disk speed";
    // What each write waits for has to be quick; what is done once an interval has to be over before the next.
    let (warn, bad, why) = match sync {
        SyncPolicy::Always => (
            Duration::from_millis(10),
            Duration::from_millis(100),
            "persistence.sync is \"always\", and each write waits for it",
        ),
        SyncPolicy::Interval => (
            interval / 10,
            interval,
            "it is done once in persistence.sync_interval_ms",
        ),
        SyncPolicy::Never => (
            Duration::MAX,
            Duration::MAX,
            "persistence.sync is \"never\", and nothing waits for it",
        ),
    };
    let expected = match sync {
        SyncPolicy::Never => format!("any: {why}"),
        _ => format!("a median of at most {warn:?}: {why}"),
    };
    match speed {
        Err(why) => Check::unknown(NAME, why, expected),
        Ok(speed) => Check::new(
            NAME,
            match speed.median {
                median if median > bad => Verdict::Bad,
                median if median > warn || speed.worst > bad => Verdict::Warn,
                _ => Verdict::Ok,
            },
            format!(
                "{} times 4 KiB and fdatasync: median {:.2} ms, worst {:.2} ms",
                speed.times,
                speed.median.as_secs_f64() * 1e3,
                speed.worst.as_secs_f64() * 1e3
            ),
            expected,
            "a disk with a cache that outlives a loss of power, or one that others use less; persistence.sync = \"interval\" waits for none",
        ),
    }
}

/// What is free, and what the node has already, beside what it may need: two snapshots and a log, each as long as the cache is large.
pub(super) fn disk_space(space: &Known<Space>, size_bytes: u64) -> Check {
    const NAME: &str = "disk space";
    let needed = size_bytes.saturating_mul(3);
    let expected = format!(
        "{}: two snapshots and a log, each as large as cache.max_size_bytes at the most",
        HumanBytes(needed)
    );
    match space {
        Err(why) => Check::unknown(NAME, why, expected),
        Ok(space) => {
            let there = space.free_bytes.saturating_add(space.own_bytes);
            Check::new(
                NAME,
                match there {
                    there if there >= needed => Verdict::Ok,
                    there if there >= size_bytes => Verdict::Warn,
                    _ => Verdict::Bad,
                },
                format!(
                    "{} free, and {} are the node's",
                    HumanBytes(space.free_bytes),
                    HumanBytes(space.own_bytes)
                ),
                expected,
                "a larger disk, or a lower cache.max_size_bytes",
            )
        }
    }
}

/// A file that a start would read: what it is, or why it is refused; none where none is configured.
pub(super) fn file(name: &str, read: &Result<Option<String>, String>) -> Option<Check> {
    const EXPECTED: &str = "a file that can be read and is its owner's alone";
    Some(match read {
        Ok(None) => return None,
        Ok(Some(path)) => Check::new(name, Verdict::Ok, path.clone(), EXPECTED, ""),
        Err(why) => Check::new(
            name,
            Verdict::Bad,
            why.clone(),
            EXPECTED,
            "what it says; chmod 600 makes a file its owner's alone",
        ),
    })
}

/// Whether a port is free, by what opening it said; and whose it is if not.
pub(super) fn port(
    name: &str,
    address: &str,
    opened: &Result<(), String>,
    owner: Option<&Owner>,
) -> Check {
    let expected = format!("{address} is free, or a node of Henge has it");
    let change = "end what has it, or another port";
    match (opened, owner) {
        (Ok(()), _) => Check::new(
            name,
            Verdict::Ok,
            format!("{address} is free"),
            expected,
            change,
        ),
        (Err(_), Some(owner)) => Check::new(
            name,
            if owner.name == "henge" {
                Verdict::Ok
            } else {
                Verdict::Bad
            },
            format!(
                "{address} is in use by {} (process {})",
                owner.name, owner.process
            ),
            expected,
            change,
        ),
        (Err(why), None) => Check::new(name, Verdict::Bad, why.clone(), expected, change),
    }
}

/// Whether a peer could be connected to.
pub(super) fn peer(address: &str, reached: &Result<Duration, String>) -> Check {
    let name = format!("peer {address}");
    let expected = "it takes connections";
    match reached {
        Ok(took) => Check::new(
            name,
            Verdict::Ok,
            format!("connected in {:.1} ms", took.as_secs_f64() * 1e3),
            expected,
            "",
        ),
        Err(why) => Check::new(
            name,
            Verdict::Warn,
            why.clone(),
            expected,
            "start it; or have the network let TCP and UDP through to its port",
        ),
    }
}

/// Whether a running node is ready, by what it says of itself.
pub(super) fn readiness(name: &str, said: &Result<(bool, String), String>) -> Check {
    let expected = "it answers, and is ready";
    let name = format!("node {name}");
    let change = "what it says; henge cluster status, and its log";
    match said {
        Ok((true, words)) => Check::new(name, Verdict::Ok, words.clone(), expected, change),
        Ok((false, words)) => Check::new(name, Verdict::Bad, words.clone(), expected, change),
        Err(why) => Check::new(name, Verdict::Bad, why.clone(), expected, change),
    }
}

/// Whether all run the same.
pub(super) fn versions(said: &[(String, String)]) -> Option<Check> {
    let (_, first) = said.first()?;
    let is_one = said.iter().all(|(_, version)| version == first);
    let found = if is_one {
        first.clone()
    } else {
        let each = said
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let verdict = if is_one { Verdict::Ok } else { Verdict::Warn };
    Some(Check::new(
        "versions",
        verdict,
        found,
        "one for all members",
        "bring all to the same; several are for the time of a change only",
    ))
}

/// Beyond this clocks are set by nobody.
const FARTHEST_APART: Duration = Duration::from_millis(500);
/// Beyond this lifetimes of seconds mean little.
const MUCH_TOO_FAR: Duration = Duration::from_secs(5);

/// How far apart the clocks of nodes are for certain, by bounds on how far each is before this machine's. A single one is held against
/// this machine.
pub(super) fn clocks(bounds: &[(String, Known<ClockBounds>)]) -> Option<Check> {
    const NAME: &str = "clocks";
    let expected = format!(
        "no two further apart than {FARTHEST_APART:?}: lifetimes end by the clock of whichever node leads"
    );
    let known: Vec<(&str, ClockBounds)> = bounds
        .iter()
        .filter_map(|(name, bounds)| Some((&**name, *bounds.as_ref().ok()?)))
        .collect();
    let mut others = known.clone();
    match (&known[..], bounds.first()) {
        ([], None) => return None,
        ([], Some((name, bounds))) => {
            let why = bounds.as_ref().err().map_or("", String::as_str);
            return Some(Check::unknown(NAME, &format!("{name}: {why}"), expected));
        }
        ([_], _) => others.push((
            "this machine",
            ClockBounds {
                least_ms: 0.0,
                most_ms: 0.0,
            },
        )),
        _ => {}
    }
    let mut widest = (0.0, "", "");
    for (nth, (one, a)) in others.iter().enumerate() {
        for (other, b) in &others[nth + 1..] {
            let apart = (a.least_ms - b.most_ms).max(b.least_ms - a.most_ms);
            if apart > widest.0 {
                widest = (apart, one, other);
            }
        }
    }
    let (apart_ms, one, other) = widest;
    let each = known.iter().map(|(name, bounds)| {
        let (middle, error) = bounds.middle();
        format!("{name} {middle:+.0} ms ± {error:.0} ms")
    });
    let found = format!(
        "beside this machine, by the dates of their answers: {}",
        each.collect::<Vec<_>>().join(", ")
    );
    let verdict = match apart_ms / 1e3 {
        apart if apart > MUCH_TOO_FAR.as_secs_f64() => Verdict::Bad,
        apart if apart > FARTHEST_APART.as_secs_f64() => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let change = format!(
        "chrony or systemd-timesyncd on all of them: {one} and {other} are {apart_ms:.0} ms apart at least"
    );
    Some(Check::new(NAME, verdict, found, expected, change))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
