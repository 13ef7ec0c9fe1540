//! How much disk a node takes, and whose its files are: real processes, real files.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::client::{Client, DEADLINE};
use crate::durability::{Data, Resp, ok};

/// What all that is on the disk may come to, in segments of the log beside three times what is kept.
const SEGMENTS: u64 = 4 * (32 << 20);

/// Overwrites without end: the log is compacted, and the disk holds little more than what lives.
#[test]
fn the_disk_holds_little_more_than_what_lives() {
    let data = Data::new();
    let process = data.start(&["compression.algorithm=none"]);
    let address = process.address;
    let is_done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_done.load(Ordering::Relaxed) {
                most = most.max(disk_used(&data.node()));
                thread::yield_now();
            }
            most
        });
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                scope.spawn(move || {
                    let mut connection = Resp::connect(address);
                    let value = "x".repeat(10_000);
                    // Some 400 MB over some 20 MB that live.
                    for round in 0..200 {
                        let pipeline: Vec<String> = (0..100)
                            .map(|n| {
                                let key = format!("{writer}:{:04}", (round * 100 + n) % 1_000);
                                format!("*3\r\n$3\r\nSET\r\n$6\r\n{key}\r\n$10000\r\n{value}\r\n")
                            })
                            .collect();
                        connection.send(&pipeline.concat()).expect("it is sent");
                        for _ in 0..100 {
                            assert_eq!(connection.reply().expect("an answer"), ok());
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("it does not panic");
        }
        is_done.store(true, Ordering::Relaxed);
        watcher.join().expect("it does not panic")
    });
    let stats = Client::connect(address).get("/stats").json();
    let live = stats["memory"]["charged_bytes"].as_u64().expect("a number");
    let made = stats["persistence"]["snapshots"]["made"].as_u64();
    assert!(made > Some(0), "{stats}");
    let bound = 3 * live + SEGMENTS;
    assert!(most <= bound, "{most} bytes of {bound}, with {live} alive");
}

fn disk_used(folder: &Path) -> u64 {
    let files = folder.read_dir().into_iter().flatten().flatten();
    // What is removed between two looks is no longer there.
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// Sets so many keys to so many bytes each.
fn fill(address: SocketAddr, keys: usize, bytes: usize) {
    const PIPELINE: usize = 100;
    let mut connection = Resp::connect(address);
    let value = "x".repeat(bytes);
    for begin in (0..keys).step_by(PIPELINE) {
        let numbers = begin..keys.min(begin + PIPELINE);
        let pipeline: Vec<String> = numbers
            .clone()
            .map(|n| format!("*3\r\n$3\r\nSET\r\n$8\r\n{n:08}\r\n${bytes}\r\n{value}\r\n"))
            .collect();
        connection.send(&pipeline.concat()).expect("it is sent");
        for _ in numbers {
            assert_eq!(connection.reply().expect("an answer"), ok());
        }
    }
}

/// Nobody but its owner reads this file or directory, nor anything in it.
pub(crate) fn assert_private(path: &Path) {
    let mode = path.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    for entry in path.read_dir().into_iter().flatten() {
        assert_private(&entry.expect("an entry").path());
    }
}

/// Whatever the umask is.
#[test]
fn data_is_read_by_its_owner_only() {
    let data = Data::new();
    let process = data.start(&[]);
    fill(process.address, 10, 10);
    assert_eq!(Resp::connect(process.address).ask("SAVE"), ok());
    let files = data.node().read_dir().expect("it is there").count();
    // The lock, the state, a segment and a snapshot.
    assert!(files >= 4, "{files} files");
    assert_private(&data.0);
}

/// What lives becomes less, and nobody writes any more: what the disk has becomes less as well.
#[test]
fn the_disk_gives_back_what_no_longer_lives() {
    type Shrink = fn(SocketAddr);
    let overwrite: Shrink = |address| fill(address, 2_000, 1);
    let flush: Shrink = |address| assert_eq!(Resp::connect(address).ask("FLUSHALL"), ok());
    for (what, shrink) in [("overwritten", overwrite), ("flushed", flush)] {
        let data = Data::new();
        let process = data.start(&[
            "compression.algorithm=none",
            "persistence.snapshot_interval=none",
        ]);
        let address = process.address;
        fill(address, 2_000, 90_000);
        assert_eq!(Resp::connect(address).ask("SAVE"), ok());
        let before = disk_used(&data.node());
        assert!(before > 180_000_000, "{before} bytes after SAVE");
        shrink(address);
        let mut client = Client::connect(address);
        let until = Instant::now() + DEADLINE;
        loop {
            let stats = client.get("/stats").json();
            let live = stats["memory"]["charged_bytes"].as_u64().expect("a number");
            let (used, bound) = (disk_used(&data.node()), 3 * live + SEGMENTS);
            if used <= bound {
                break;
            }
            assert!(
                Instant::now() < until,
                "{what}: {used} bytes of {bound}, with {live} alive"
            );
            thread::yield_now();
        }
    }
}
