//! What the system says of itself, from `/proc` and `/sys`: read, and understood no further than into numbers and words.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::facts::{Known, Owner, Swap};

/// The most files that a process of this user may have open; none is without a limit.
pub(super) fn most_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// The words of a file.
pub(super) fn words(path: &str) -> Known<String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    Ok(text.trim().to_owned())
}

/// The number of a file.
pub(super) fn number(path: &str) -> Known<u64> {
    let words = words(path)?;
    words.parse().map_err(|_| format!("{path} has no number"))
}

pub(super) fn swap() -> Known<Swap> {
    let total_bytes =
        swap_bytes(&words("/proc/meminfo")?).ok_or("/proc/meminfo has no SwapTotal")?;
    let swappiness = number("/proc/sys/vm/swappiness")?;
    Ok(Swap {
        total_bytes,
        swappiness,
    })
}

fn swap_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("SwapTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Who listens on a port; none where nobody does, or it is not known, as of processes of other users. Of several who have the socket, as
/// the workers of a server have or whoever was forked a moment ago, it is the oldest.
pub(super) fn owner_of(port: u16) -> Option<Owner> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let owners = numbers.filter_map(|process: u32| {
        let folder = Path::new("/proc").join(process.to_string());
        let mut handles = fs::read_dir(folder.join("fd")).ok()?.flatten();
        handles.find(|handle| {
            let target = fs::read_link(handle.path());
            target.is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == &**socket))
        })?;
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        let started = started(&fs::read_to_string(folder.join("stat")).ok()?)?;
        let owner = Owner {
            name: name.trim().to_owned(),
            process,
        };
        Some((started, owner))
    });
    let oldest = owners.min_by_key(|(started, owner)| (*started, owner.process));
    oldest.map(|(_, owner)| owner)
}

/// When a process began, in ticks since the system did, of its `stat` as proc(5) has it.
fn started(stat: &str) -> Option<u64> {
    // The first two fields are a number, and a name in which anything may be.
    const FIELDS_BETWEEN: usize = 19;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    fields.nth(FIELDS_BETWEEN)?.parse().ok()
}

/// The inodes of sockets that listen on a port, of a table as proc(5) has it.
fn listeners(table: &str, port: u16) -> Vec<u64> {
    const LISTENS: &str = "0A";
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, at) = fields.get(1)?.rsplit_once(':')?;
            let is_it = u16::from_str_radix(at, 16) == Ok(port) && fields.get(3) == Some(&LISTENS);
            is_it.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn tables_of_the_system_are_read() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1455 1 x
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1456 1 x
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1457 1 x
";
        assert_eq!(listeners(table, 8080), [1455]);
        assert_eq!(listeners("nonsense\nnonsense", 8080), [0; 0]);
        assert_eq!(
            swap_bytes("MemTotal: 1 kB\nSwapTotal:       4 kB\n"),
            Some(4096)
        );
        assert_eq!(swap_bytes("MemTotal: 1 kB"), None);
    }

    #[test]
    fn who_has_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let owner = owner_of(port).expect("it is this process");
        assert_eq!(owner.process, std::process::id());
        // A younger one has it as well, and then alone.
        let shared = listener.try_clone().expect("a handle");
        let mut sleep = Command::new("sleep");
        sleep.arg("60").stdin(OwnedFd::from(shared));
        let mut child = sleep.spawn().expect("it is everywhere");
        // It would keep it too.
        drop(sleep);
        let both = owner_of(port);
        drop(listener);
        let alone = owner_of(port);
        child.kill().expect("it runs");
        child.wait().expect("it ended");
        assert_eq!(both, Some(owner));
        assert_eq!(alone.map(|owner| owner.process), Some(child.id()));
        // Nobody can have this one.
        assert_eq!(owner_of(0), None);
    }

    #[test]
    fn the_name_of_a_process_may_be_anything() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) S 1 (b)) {}", fields.join(" "));
        assert_eq!(started(&stat), Some(22));
        assert_eq!(started("7 (a) S 1"), None);
    }
}
