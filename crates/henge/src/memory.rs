//! What the machine, the control group and the process say about memory, threads, files and CPU time. Everything is read
//! when asked, and nothing is remembered or decided here; what the allocator says is `allocator.rs`.
//!
//! Reading is Linux's `/proc` and `/sys/fs/cgroup`, versions 1 and 2, as proc(5) and the kernel's `cgroup-v2.rst` describe
//! them. On another system each answer is an error that says so, and whoever asks falls back to what was configured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Who sets a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitSource {
    /// The memory that there is.
    Machine,
    /// The control group of the process, or one above it.
    ControlGroup,
}

impl LimitSource {
    /// The name in `/stats` and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::ControlGroup => "cgroup",
        }
    }
}

/// A limit, and how much below it is taken, by this process and by all others that the limit holds for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryState {
    /// The limit, in bytes.
    pub total_bytes: u64,
    /// What is taken and could not be had by dropping the page cache, in bytes.
    pub used_bytes: u64,
    /// Whose limit it is.
    pub limit_source: LimitSource,
}

impl MemoryState {
    /// The part that is taken, from 0 to 1 and a little over.
    pub fn used_fraction(&self) -> f64 {
        self.used_bytes as f64 / self.total_bytes.max(1) as f64
    }
}

/// The machine and the control groups together. A group may be small and empty inside one that is large and full, so
/// there are two answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineMemory {
    /// The smallest limit: what a default size is a part of.
    pub smallest: MemoryState,
    /// The limit that is nearest to being reached: what the memory trigger watches.
    pub fullest: MemoryState,
}

/// Reads the limits that hold for this process.
///
/// # Errors
/// Off Linux (`Unsupported`), or when `/proc` cannot be read. Control groups that cannot be read are passed over.
pub fn machine() -> io::Result<MachineMemory> {
    linux_only("the memory of the machine")?;
    machine_in(Path::new("/"))
}

/// What the system keeps about a process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProcessFigures {
    /// The resident size, in bytes.
    pub rss_bytes: u64,
    /// The threads that there are.
    pub threads: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// CPU time in its own code, in seconds since it started.
    pub cpu_user_seconds: f64,
    /// CPU time in the kernel on its behalf, in seconds since it started.
    pub cpu_system_seconds: f64,
}

/// Reads the figures of this process.
///
/// # Errors
/// Off Linux (`Unsupported`), or when `/proc` cannot be read.
pub fn process() -> io::Result<ProcessFigures> {
    linux_only("the process's own figures")?;
    process_in(Path::new("/"))
}

fn linux_only(what: &str) -> io::Result<()> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    let message = format!("{what} are not known on this system: only Linux's /proc is understood");
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

/// `root` stands for `/`, so that a test can lay out a machine of its own.
fn machine_in(root: &Path) -> io::Result<MachineMemory> {
    let machine = parse_meminfo(&read(&root.join("proc/meminfo"))?)
        .ok_or_else(|| malformed("/proc/meminfo", "no MemTotal and MemAvailable"))?;
    let mut states = vec![machine];
    for group in control_groups(root) {
        // Version 1 says "no limit" by a number that no machine has, and version 2 by the word max.
        states.extend(group.read().filter(|s| s.total_bytes < machine.total_bytes));
    }
    let by_fraction =
        |a: &&MemoryState, b: &&MemoryState| a.used_fraction().total_cmp(&b.used_fraction());
    Ok(MachineMemory {
        smallest: *states
            .iter()
            .min_by_key(|s| s.total_bytes)
            .unwrap_or(&machine),
        fullest: *states.iter().max_by(by_fraction).unwrap_or(&machine),
    })
}

fn process_in(root: &Path) -> io::Result<ProcessFigures> {
    let stat = parse_stat(&read(&root.join("proc/self/stat"))?)
        .ok_or_else(|| malformed("/proc/self/stat", "fewer fields than proc(5) has"))?;
    // The listing holds a descriptor of its own.
    let open_files = fs::read_dir(root.join("proc/self/fd"))?.count() as u64;
    let ticks_per_second = ticks_per_second();
    Ok(ProcessFigures {
        rss_bytes: stat.rss_pages.saturating_mul(page_bytes()),
        threads: stat.threads,
        open_files: open_files.saturating_sub(1),
        cpu_user_seconds: stat.user_ticks as f64 / ticks_per_second,
        cpu_system_seconds: stat.system_ticks as f64 / ticks_per_second,
    })
}

#[cfg(unix)]
fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(unix)]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

// Never reached: `linux_only` has answered before.
#[cfg(not(unix))]
fn page_bytes() -> u64 {
    4096
}

#[cfg(not(unix))]
fn ticks_per_second() -> f64 {
    100.0
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn malformed(path: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {what}"))
}

/// `/proc/meminfo`. `MemAvailable` is since Linux 3.14 the kernel's own guess of what can be had without swapping.
fn parse_meminfo(text: &str) -> Option<MemoryState> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line
            .strip_prefix(':')?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()?;
        kib.checked_mul(1024)
    };
    let total_bytes = field("MemTotal")?;
    Some(MemoryState {
        total_bytes,
        used_bytes: total_bytes.saturating_sub(field("MemAvailable")?),
        limit_source: LimitSource::Machine,
    })
}

#[derive(PartialEq, Eq, Debug)]
struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    rss_pages: u64,
}

/// `/proc/PID/stat`. The second field is the program's name in parentheses, and may hold both spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let after_name = &text[text.rfind(')')? + 1..];
    // Fields are numbered from 1 in proc(5), and the next one is the third.
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Stat {
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        threads: field(20)?,
        rss_pages: field(24)?,
    })
}

/// The two interfaces of control groups. A machine may run both, and then memory is in one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2,
}

/// A control group that limits memory, or would if it had a limit.
#[derive(PartialEq, Eq, Debug)]
struct ControlGroup {
    version: Version,
    directory: PathBuf,
}

impl ControlGroup {
    /// None when it has no limit or cannot be read: the root group has no such files, and containers hide some.
    fn read(&self) -> Option<MemoryState> {
        let (limit, usage, inactive) = match self.version {
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            Version::V2 => ("memory.max", "memory.current", "inactive_file"),
        };
        let number = |name| parse_bytes(&fs::read_to_string(self.directory.join(name)).ok()?);
        let stat = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        Some(MemoryState {
            total_bytes: number(limit)?,
            // File pages that nobody used lately are given up before anything is killed.
            used_bytes: number(usage)?.saturating_sub(parse_stat_line(&stat, inactive)),
            limit_source: LimitSource::ControlGroup,
        })
    }
}

/// A file of one number. "max" is None: no limit.
fn parse_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A line of `memory.stat`; 0 if there is none.
fn parse_stat_line(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name))
        .and_then(|(_, value)| parse_bytes(value))
        .unwrap_or(0)
}

/// The groups whose limits hold for this process: its own, and those above it up to where the hierarchy is mounted.
fn control_groups(root: &Path) -> Vec<ControlGroup> {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mounts = parse_mounts(&text("proc/self/mountinfo"));
    let mut groups = Vec::new();
    for (version, path) in parse_memberships(&text("proc/self/cgroup")) {
        let Some(mount) = mounts.iter().find(|mount| mount.version == version) else {
            continue;
        };
        for directory in mount.directories(&path) {
            let relative = directory.strip_prefix("/").unwrap_or(&directory);
            groups.push(ControlGroup {
                version,
                directory: root.join(relative),
            });
        }
    }
    groups
}

/// `/proc/self/cgroup`: lines of `hierarchy:controllers:path`. Hierarchy 0 is version 2.
fn parse_memberships(text: &str) -> Vec<(Version, String)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if hierarchy == "0" && controllers.is_empty() {
                Some((Version::V2, path.to_string()))
            } else if controllers.split(',').any(|name| name == "memory") {
                Some((Version::V1, path.to_string()))
            } else {
                None
            }
        })
        .collect()
}

/// Where a hierarchy that may limit memory is mounted.
#[derive(PartialEq, Eq, Debug)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point: `/`, or a container's own.
    group: String,
    point: PathBuf,
}

impl Mount {
    /// The directories from a group's own up to the mount point.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        // What is mounted may be a group below the root. A path outside of it, as in a container that was given the path
        // of the host, or `/..` from another namespace, leaves the mount point itself: the nearest that can be seen.
        let below = Path::new(path)
            .strip_prefix(&self.group)
            .ok()
            .filter(|below| {
                below
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)))
            })
            .unwrap_or(Path::new(""));
        below
            .ancestors()
            .map(|part| self.point.join(part))
            .collect()
    }
}

/// `/proc/self/mountinfo`: `id parent device root point options [tags] - type source options`.
fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let version = match right.next()? {
                "cgroup2" => Version::V2,
                "cgroup" if right.nth(1)?.split(',').any(|name| name == "memory") => Version::V1,
                _ => return None,
            };
            let mut left = left.split(' ').skip(3);
            Some(Mount {
                version,
                group: unescape(left.next()?),
                point: PathBuf::from(unescape(left.next()?)),
            })
        })
        .collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MIB: u64 = 1 << 20;

    /// A machine in a directory, gone when dropped.
    struct FakeRoot(PathBuf);

    impl FakeRoot {
        fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("henge-memory-{}-{count}", std::process::id());
            let root = Self(std::env::temp_dir().join(name));
            for (path, content) in files {
                let path = root.0.join(path);
                let parent = path.parent().expect("every path is below the root");
                fs::create_dir_all(parent).expect("the temporary directory is ours");
                fs::write(path, content).expect("the temporary directory is ours");
            }
            root
        }
    }

    impl Drop for FakeRoot {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// 8 GiB, of which 2 GiB are taken.
    const MEMINFO: &str =
        "MemTotal:        8388608 kB\nMemFree:          100000 kB\nMemAvailable:    6291456 kB\n";
    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

    fn state(total_mib: u64, used_mib: u64, limit_source: LimitSource) -> MemoryState {
        MemoryState {
            total_bytes: total_mib * MIB,
            used_bytes: used_mib * MIB,
            limit_source,
        }
    }

    #[test]
    fn meminfo_is_read_and_nonsense_is_not() {
        let machine = state(8192, 2048, LimitSource::Machine);
        for (text, expected) in [
            (MEMINFO, Some(machine)),
            (
                "MemTotal: 100 kB\nMemAvailable: 200 kB\n",
                Some(MemoryState {
                    total_bytes: 102_400,
                    used_bytes: 0,
                    ..machine
                }),
            ),
            ("", None),
            ("MemTotal: 100 kB\n", None),
            ("MemTotal: many kB\nMemAvailable: 1 kB\n", None),
            ("MemTotal: 100\nMemAvailable: 1 kB\n", None),
            (
                "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n",
                None,
            ),
        ] {
            assert_eq!(parse_meminfo(text), expected, "{text}");
        }
    }

    #[test]
    fn stat_is_read_past_any_program_name() {
        let rest = "S 1 18399 9909 0 -1 4194304 99 0 0 0 170 23 0 0 20 0 5 0 259444 3133440 407 18446744073709551615 94";
        let expected = Stat {
            user_ticks: 170,
            system_ticks: 23,
            threads: 5,
            rss_pages: 407,
        };
        for name in ["henge", "a b", ") (", "((", ""] {
            let text = format!("18407 ({name}) {rest}");
            assert_eq!(parse_stat(&text).as_ref(), Some(&expected), "{text}");
        }
        for text in ["", "1 (henge", "1 (henge) S 1 2 3", "1 (henge)"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn memberships_are_told_apart() {
        for (text, expected) in [
            (
                "0::/user.slice/a:b\n",
                vec![(Version::V2, "/user.slice/a:b")],
            ),
            (
                "4:memory:/x\n1:cpu:/\n0::/\n",
                vec![(Version::V1, "/x"), (Version::V2, "/")],
            ),
            (
                "5:cpu,memory:/x\n9:name=systemd:/memory\n",
                vec![(Version::V1, "/x")],
            ),
            ("", vec![]),
            ("nonsense\n0:\n", vec![]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(v, p)| (v, p.to_string()))
                .collect();
            assert_eq!(parse_memberships(text), expected, "{text}");
        }
    }

    #[test]
    fn mounts_are_found_and_lead_from_the_group_up() {
        let mounts = parse_mounts(&format!(
            "{V1}{V2}22 1 8:1 / / rw - ext4 /dev/sda rw\nnonsense\n"
        ));
        let points: Vec<_> = mounts
            .iter()
            .map(|m| (m.version, m.point.as_path()))
            .collect();
        assert_eq!(
            points,
            [
                (Version::V1, Path::new("/sys/fs/cgroup/memory")),
                (Version::V2, Path::new("/sys/fs/cgroup"))
            ]
        );
        let odd = parse_mounts("1 2 0:3 /a\\040b /mnt/c\\134d rw - cgroup2 none rw");
        assert_eq!(odd[0].group, "/a b");
        assert_eq!(odd[0].point, Path::new("/mnt/c\\d"));

        for (group, path, expected) in [
            ("/", "/", vec!["/m"]),
            ("/", "/a/b", vec!["/m/a/b", "/m/a", "/m"]),
            ("/docker/x", "/docker/x", vec!["/m"]),
            ("/docker/x", "/docker/x/y", vec!["/m/y", "/m"]),
            ("/docker/x", "/elsewhere", vec!["/m"]),
            ("/", "/../../etc", vec!["/m"]),
        ] {
            let mount = Mount {
                version: Version::V2,
                group: group.into(),
                point: "/m".into(),
            };
            let expected: Vec<_> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(mount.directories(path), expected, "{path} below {group}");
        }
    }

    /// Paths and what is in them.
    type Files = Vec<(String, String)>;

    #[test]
    fn the_smallest_and_the_fullest_limit_are_found() {
        let gib = |n: u64| (n << 30).to_string();
        let mib = |n: u64| (n * MIB).to_string();
        let machine = state(8192, 2048, LimitSource::Machine);
        let group = |total, used| state(total, used, LimitSource::ControlGroup);
        let own = "sys/fs/cgroup/a/b";
        let above = "sys/fs/cgroup/a";
        let v2 = |dir: &str, max: &str, current: &str, stat: &str| -> Files {
            [
                ("memory.max", max),
                ("memory.current", current),
                ("memory.stat", stat),
            ]
            .map(|(name, text)| (format!("{dir}/{name}"), format!("{text}\n")))
            .to_vec()
        };
        let v1 = |limit: &str| -> Files {
            let dir = "sys/fs/cgroup/memory/x";
            let stat = format!("inactive_file 1\ntotal_inactive_file {}\n", mib(100));
            vec![
                (format!("{dir}/memory.limit_in_bytes"), limit.to_string()),
                (format!("{dir}/memory.usage_in_bytes"), mib(400)),
                (format!("{dir}/memory.stat"), stat),
            ]
        };
        let inactive = format!("anon 5\ninactive_file {}\nactive_file 9", mib(200));
        #[rustfmt::skip]
        let table: Vec<(&str, &str, &str, Files, MemoryState, MemoryState)> = vec![
            ("no groups at all", "", "", vec![], machine, machine),
            ("version 2", "0::/a/b", V2, v2(own, &gib(1), &mib(700), &inactive), group(1024, 500), group(1024, 500)),
            ("version 2, no memory.stat", "0::/a/b", V2, v2(own, &gib(1), &mib(700), ""), group(1024, 700), group(1024, 700)),
            ("no limit", "0::/a/b", V2, v2(own, "max", &mib(700), &inactive), machine, machine),
            ("a limit above the machine", "0::/a/b", V2, v2(own, &gib(64), &mib(700), &inactive), machine, machine),
            ("small and empty", "0::/a/b", V2, v2(own, &gib(1), &mib(10), ""), group(1024, 10), machine),
            ("the limit is above", "0::/a/b", V2,
                [v2(own, "max", &mib(1), ""), v2(above, &gib(2), &gib(1), "")].concat(), group(2048, 1024), group(2048, 1024)),
            ("empty inside full", "0::/a/b", V2,
                [v2(own, &gib(1), &mib(1), ""), v2(above, &gib(2), &gib(2), "")].concat(), group(1024, 1), group(2048, 2048)),
            ("version 1", "4:memory:/x\n0::/", V1, v1(&mib(500)), group(500, 300), group(500, 300)),
            ("version 1 without a limit", "4:memory:/x\n0::/", V1, v1("9223372036854771712"), machine, machine),
            ("not mounted", "4:memory:/x\n0::/", "", v1(&mib(500)), machine, machine),
        ];
        for (name, cgroup, mountinfo, files, smallest, fullest) in table {
            let mut all = vec![
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", cgroup),
                ("proc/self/mountinfo", mountinfo),
            ];
            all.extend(
                files
                    .iter()
                    .map(|(path, text)| (path.as_str(), text.as_str())),
            );
            let root = FakeRoot::new(&all);
            let answer = machine_in(&root.0).expect("meminfo is there");
            assert_eq!(answer, MachineMemory { smallest, fullest }, "{name}");
        }
    }

    #[test]
    fn a_missing_or_broken_proc_is_an_error_that_names_the_file() {
        for (files, expected) in [
            (vec![("x", "")], "proc/meminfo: "),
            (
                vec![("proc/meminfo", "nonsense")],
                "/proc/meminfo: no MemTotal",
            ),
        ] {
            let root = FakeRoot::new(&files);
            let error = machine_in(&root.0).expect_err("there is no memory");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let root = FakeRoot::new(&[("proc/self/stat", "1 (x) S")]);
        let error = process_in(&root.0).expect_err("there are no figures");
        assert!(error.to_string().contains("/proc/self/stat"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_and_this_process_have_plausible_figures() {
        let memory = machine().expect("Linux has /proc");
        assert!(memory.smallest.total_bytes <= memory.fullest.total_bytes);
        assert!(memory.fullest.used_fraction() >= memory.smallest.used_fraction());
        assert!(memory.smallest.used_bytes > 0);

        let figures = process().expect("Linux has /proc");
        assert!(figures.rss_bytes > 0 && figures.rss_bytes < memory.smallest.total_bytes);
        assert!(figures.threads >= 1);
        assert!(figures.open_files >= 1);
        assert!(figures.cpu_user_seconds >= 0.0 && figures.cpu_system_seconds >= 0.0);
    }
}
