//! A cluster changes its secret by reloads, with all nodes up and clients that read and write all the time; and who has only the
//! secret that was taken away is no node of it any more.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use henge_cluster::secret::Secret;
use rustix::process::Signal;
use serde_json::json;

use super::Ring;
use super::moves::{all_are_up, all_is_settled};
use super::raw_peer::{RawPeer, cluster, hello, secret};
use crate::durability::Resp;
use crate::resp_reply::Reply;

/// Longer than a connection goes on whose secret was taken away (6 s), so that the clients are there when it ends.
const LONGER: Duration = Duration::from_secs(8);
/// Requests of each client from one step to the next.
const BETWEEN: u64 = 10;

/// Writes a node's own settings: the secret that it uses, and another that it accepts.
fn configure(ring: &Ring, n: usize, used: &Path, accepted: Option<&Path>) {
    let mut text = format!("[cluster]\nsecret_file = \"{}\"\n", used.display());
    if let Some(accepted) = accepted {
        writeln!(text, "accepted_secret_file = \"{}\"", accepted.display()).expect("it is text");
    }
    fs::write(ring.config_path(n), text).expect("written");
}

/// Has a node read its settings again, by a signal or over HTTP, and waits until it goes by them.
fn reload(ring: &Ring, n: usize) {
    let replaced = |ring: &Ring| {
        ring.log(n)
            .matches("secrets of the cluster were replaced")
            .count()
    };
    let before = replaced(ring);
    if n.is_multiple_of(2) {
        let reloaded = ring.http(n).post("/admin/reload", "");
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        assert_eq!(reloaded.json()["needs_restart"], serde_json::json!([]));
    } else {
        ring.signal(n, Signal::HUP);
    }
    ring.until("it goes by its file", || replaced(ring) == before + 1);
}

/// One client: it writes a key at a node and reads it there, at `QUORUM`, again and again. What goes wrong ends it.
fn read_and_write(mut node: Resp, key: &str, is_over: &AtomicBool, requests: &AtomicU64) {
    let ok = Reply::Text("OK".to_owned());
    for value in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let written = node.ask(&format!("SET {key} {value}"));
        assert_eq!(written, ok, "{key}, after {value} writes");
        let read = node.ask(&format!("GET {key}"));
        assert_eq!(read, Reply::Text(value.to_string()), "{key}");
        requests.fetch_add(2, Ordering::Relaxed);
    }
}

/// What must not change: the epoch and the members that are up, as each node has it.
fn state(ring: &Ring) -> Vec<String> {
    let of = |n| format!("{} {:?}", ring.status(n)["epoch"], ring.members(n));
    (1..=3).map(of).collect()
}

#[test]
fn a_secret_is_changed_while_all_are_up() {
    let ring = Ring::new().set("cluster.replication_factor=3");
    let (_, old) = secret(&ring, "old");
    let (_, new) = secret(&ring, "new");
    for n in 1..=4 {
        configure(&ring, n, &old, None);
    }
    let mut ring = ring.formed(3);
    (1..=3).for_each(|n| all_are_up(&ring, n, 3));
    all_is_settled(&ring, 3);
    let before = state(&ring);
    let is_over = AtomicBool::new(false);
    let requests: [AtomicU64; 6] = Default::default();
    thread::scope(|scope| {
        let clients: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(number, requests)| {
                let node = ring.resp(number % 3 + 1);
                let (key, is_over) = (format!("k{number}"), &is_over);
                scope.spawn(move || read_and_write(node, &key, is_over, requests))
            })
            .collect();
        let all_go_on = |until: Instant| {
            let now = || {
                requests
                    .each_ref()
                    .map(|count| count.load(Ordering::Relaxed))
            };
            let before = now();
            ring.until("all clients go on", || {
                let is_over = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                let mut both = before.iter().zip(now());
                let have = both.all(|(before, now)| now >= before + BETWEEN);
                is_over || have && Instant::now() >= until
            });
        };
        all_go_on(Instant::now());
        let steps = [(&old, Some(&new)), (&new, Some(&old)), (&new, None)];
        for (used, accepted) in steps {
            for n in 1..=3 {
                configure(&ring, n, used, accepted.map(std::path::PathBuf::as_path));
                reload(&ring, n);
                all_go_on(Instant::now());
            }
        }
        all_go_on(Instant::now() + LONGER);
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(state(&ring), before);
    for n in 1..=3 {
        let log = ring.log(n);
        assert!(!log.contains("WARN"), "{log}");
        assert_eq!(ring.figure(n, "henge_dropped_datagrams_total"), 0);
    }
    who_has_the_old_one_is_refused(&mut ring, &new);
}

/// And comes in as soon as it has the new one, without a start.
fn who_has_the_old_one_is_refused(ring: &mut Ring, new: &Path) {
    ring.start(4, &ring.others(4, 4));
    ring.until("it is told what it lacks", || {
        let waits = ring.status(4)["waits"].to_string();
        waits.contains(
            "does not have the secret of the cluster; all nodes need the same cluster.secret_file",
        )
    });
    assert!(!ring.is_ready(4));
    for n in 1..=3 {
        assert_eq!(ring.members(n).len(), 3);
    }
    configure(ring, 4, new, None);
    reload(ring, 4);
    ring.wait_until_ready([4]);
    all_are_up(ring, 1, 4);
}

/// Also one that is a member and has a connection: it proved itself by what does not hold any more.
#[test]
fn what_was_proved_by_a_secret_that_was_taken_away_ends() {
    let ring = Ring::new();
    let (old, old_path) = secret(&ring, "old");
    let (new, new_path) = secret(&ring, "new");
    for n in 1..=2 {
        configure(&ring, n, &old_path, None);
    }
    let ring = ring.formed(2);
    all_are_up(&ring, 1, 2);
    let me = hello(cluster(&ring, 1));
    let link = |secret: &Secret| RawPeer::greeted(ring.address(1), &me, secret);
    let [by, other] = [&old, &new].map(|secret| format!("{:08x}", secret.id()));
    let shows = |used: &str, accepted: &[&str]| {
        let shown = &ring.status(1)["nodes"][0]["secrets"];
        assert_eq!(*shown, json!({"uses": used, "accepts": accepted}));
    };
    shows(&by, &[&by]);
    let was_read = |line: &str| line.contains("secrets of the cluster were read");
    let log = ring.log(1);
    let mut read = log.lines().filter(|line| was_read(line));
    assert!(read.any(|line| line.contains(&by)), "{log}");
    let mut by_old = link(&old);
    assert!(by_old.is_served());
    configure(&ring, 1, &old_path, Some(&new_path));
    reload(&ring, 1);
    shows(&by, &[&by, &other]);
    let mut by_new = link(&new);
    assert!(by_old.is_served() && by_new.is_served());
    configure(&ring, 1, &new_path, None);
    reload(&ring, 1);
    shows(&other, &[&other]);
    let refused = link(&old).refusal().expect("it says why");
    let expected =
        "it does not have the secret of this node's cluster; give it the same cluster.secret_file";
    assert_eq!(refused, expected);
    assert_eq!(by_old.next(), None, "it is closed");
    assert!(by_new.is_served());
    ring.until("the other node is none any more", || {
        ring.members(1).contains(&(ring.address(2), false))
    });
    ring.until("and its operator is told why", || {
        let log = ring.log(2);
        let mut lines = log.lines().filter(|line| line.contains("WARN"));
        lines.any(|line| line.contains("node1 does not have the secret of the cluster"))
    });
}

/// A file that is wrong changes nothing, and what it is about is said.
#[test]
fn a_secret_that_is_wrong_changes_nothing() {
    let ring = Ring::new();
    let (_, path) = secret(&ring, "old");
    configure(&ring, 1, &path, None);
    let ring = ring.formed(1);
    let short = ring.data.join("short");
    fs::copy(&path, &short).expect("copied");
    fs::write(&short, "short").expect("written");
    let none = ring.data.join("none");
    let open = ring.data.join("open");
    fs::write(&open, "o".repeat(32)).expect("written");
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    fs::set_permissions(&open, mode).expect("it is ours");
    let table = [
        (&none, "cannot be read"),
        (
            &short,
            "the cluster's secret has 5 bytes; expected 32 or more",
        ),
        (
            &open,
            "others than its owner may use the cluster's secret (mode 0644)",
        ),
    ];
    let says = |what: &str, path: &Path| {
        let refused = ring.http(1).post("/admin/reload", "");
        let text = refused.json()["detail"].to_string();
        assert_eq!(
            (refused.status, &*refused.code()),
            (422, "invalid_configuration")
        );
        let name = path.display().to_string();
        assert!(text.contains(what) && text.contains(&name), "{text}");
    };
    for (wrong, what) in table {
        for (used, accepted) in [(wrong, Some(&path)), (&path, Some(wrong))] {
            configure(&ring, 1, used, accepted.map(std::path::PathBuf::as_path));
            says(what, wrong);
        }
    }
    let alone = format!("[cluster]\naccepted_secret_file = \"{}\"\n", path.display());
    fs::write(ring.config_path(1), alone).expect("written");
    says("do not go together", &path);
    assert!(!ring.log(1).contains("secrets of the cluster were replaced"));
    // The same in both is as one.
    configure(&ring, 1, &path, Some(&path));
    assert_eq!(ring.http(1).post("/admin/reload", "").status, 200);
    assert!(!ring.log(1).contains("secrets of the cluster were replaced"));
}
