//! Repairs: what a start refuses is told, left out or cut off, and what is served after that is allowed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{
    Place, flip, get, henge, inspected, items, kill, plain_and_encrypted, puts_of, refusal, said,
    set, stop, text,
};
use crate::client::Client;
use crate::disk_used::assert_private;

/// Keys enough for about each partition to have some.
const MANY: usize = 6000;

fn write_many(client: &mut Client, prefix: &str) {
    let numbers: Vec<usize> = (0..MANY).collect();
    for numbers in numbers.chunks(500) {
        let items: Vec<String> = numbers
            .iter()
            .map(|number| format!(r#"{{"key":"{prefix}:{number}","value":"{number}"}}"#))
            .collect();
        let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
        assert_eq!(client.post("/mset", &body).status, 200);
    }
}

#[test]
fn damage_in_the_log_is_left_out_or_all_behind_it_dropped() {
    plain_and_encrypted("damage", |place| {
        let process = place.start("a", &[]);
        let mut client = Client::connect(process.address);
        write_many(&mut client, "first");
        for key in ["x", "y", "z"] {
            set(&mut client, key, b"old", &[]);
        }
        set(&mut client, "x", b"new", &[]);
        set(&mut client, "y", b"new", &[]);
        set(&mut client, "z", b"last", &[]);
        write_many(&mut client, "second");
        stop(process);

        let files = place.files("a", ".wal");
        let [file] = &files[..] else {
            panic!("{files:?}");
        };
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let damaged = puts_of(file, "y")[1];
        flip(file, damaged + 20);
        let why = refusal(place.command("a", &[]));
        assert!(
            why.contains(&format!("{name} is damaged at byte {damaged}: ")),
            "{why}"
        );
        let (_, err) = said(&["inspect", text(file)], 1);
        assert!(
            err.contains(&format!(
                "is damaged at byte {damaged}: the checksum is wrong"
            )),
            "{err}"
        );
        let directory = place.of_node("a");
        let before = fs::read(file).expect("it is there");
        let (out, err) = said(&["repair", "--data-dir", text(&directory)], 1);
        assert!(
            err.contains(&format!("{name} is damaged at byte {damaged}")),
            "{err}"
        );
        for part in [
            "--cut:",
            "--skip:",
            "bytes are left out of",
            "records that can be read",
            "Nothing was changed",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
        let (out, _) = said(
            &[
                "repair",
                "--skip",
                "--dry-run",
                "--data-dir",
                text(&directory),
            ],
            1,
        );
        assert!(out.contains("Nothing was changed"), "{out}");
        assert!(before == fs::read(file).expect("it is there"));
        assert_eq!(place.files("a", ".before-repair"), [] as [PathBuf; 0]);

        leave_out(place, &name, &before);
        cut_off(place);
    });
}

/// What was damaged is forgotten, and nothing older comes back in its place.
fn leave_out(place: &Place, name: &str, before: &[u8]) {
    place.copy("a", "skip");
    let (out, _) = said(
        &[
            "repair",
            "--skip",
            "--data-dir",
            text(&place.of_node("skip")),
        ],
        0,
    );
    assert!(
        out.contains(&format!("{name} as it was is kept as {name}.before-repair")),
        "{out}"
    );
    let kept = place.of_node("skip").join(format!("{name}.before-repair"));
    assert!(before == fs::read(kept).expect("it is kept"));
    for file in place.files("skip", "") {
        assert_private(&file);
    }
    let process = place.start("skip", &[]);
    let mut client = Client::connect(process.address);
    assert_eq!(
        get(&mut client, "y"),
        None,
        "what was there before is not shown again"
    );
    for (key, value) in [("x", "new"), ("z", "last")] {
        let found = get(&mut client, key);
        assert!(
            found.is_none() || found.as_deref() == Some(value),
            "{key}: {found:?}"
        );
    }
    // Partitions that were written to later missed nothing.
    assert!(
        items(process.address) > MANY as u64 * 3 / 2,
        "{}",
        items(process.address)
    );
    for number in 0..MANY {
        let found = get(&mut client, &format!("second:{number}"));
        assert_eq!(found.as_deref(), Some(&number.to_string()[..]));
    }
    // What is written from here on proves nothing of what is missing.
    write_many(&mut client, "third");
    kill(process);
    let process = place.start("skip", &[]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "y"), None);
    assert_eq!(get(&mut client, "third:7").as_deref(), Some("7"));
    stop(process);
}

/// All is as it was when the damaged record was written.
fn cut_off(place: &Place) {
    place.copy("a", "cut");
    said(
        &["repair", "--cut", "--data-dir", text(&place.of_node("cut"))],
        0,
    );
    let process = place.start("cut", &[]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "x").as_deref(), Some("new"));
    assert_eq!(get(&mut client, "y").as_deref(), Some("old"));
    assert_eq!(get(&mut client, "z").as_deref(), Some("old"));
    assert_eq!(items(process.address), MANY as u64 + 3);
    stop(process);
}

/// The start after a repair goes on from later versions, and what is written then proves nothing of what was missing before.
#[test]
fn what_a_gap_hides_stays_forgotten() {
    plain_and_encrypted("gap", |place| {
        let process = place.start("a", &[]);
        let mut client = Client::connect(process.address);
        set(&mut client, "%7Bquiet%7Dy", b"old", &[]);
        set(&mut client, "%7Bquiet%7Dy", b"new", &[]);
        set(&mut client, "%7Bbusy%7Dx", b"new", &[]);
        stop(process);
        let file = &place.files("a", ".wal")[0];
        flip(file, puts_of(file, "{quiet}y")[1] + 20);
        let directory = place.of_node("a");
        let (out, _) = said(&["repair", "--skip", "--data-dir", text(&directory)], 0);
        assert!(out.contains("1 of 1,024 partitions are forgotten"), "{out}");
        for life in 0..3 {
            let process = place.start("a", &[]);
            let mut client = Client::connect(process.address);
            assert_eq!(get(&mut client, "%7Bquiet%7Dy"), None, "life {life}");
            set(&mut client, "%7Bquiet%7Dz", b"later", &[]);
            kill(process);
        }
    });
}

#[test]
fn other_damage_of_the_log() {
    plain_and_encrypted("segments", |place| {
        type Harm<'a> = (&'a str, &'a dyn Fn(&[PathBuf]), Option<&'a str>, &'a str);
        // Each life of a node begins a segment.
        for life in 0..4 {
            let process = place.start("a", &[]);
            let mut client = Client::connect(process.address);
            set(&mut client, "k", format!("life {life}").as_bytes(), &[]);
            write_many(&mut client, "many");
            stop(process);
        }
        let files = place.files("a", ".wal");
        assert_eq!(files.len(), 4);
        // A name, what is done to the segments, what the key may be after --skip and is after --cut.
        let table: &[Harm<'_>] = &[
            (
                "missing",
                &|files| fs::remove_file(&files[2]).expect("removed"),
                Some("life 3"),
                "life 1",
            ),
            (
                "header",
                &|files| flip(&files[2], 20),
                Some("life 3"),
                "life 1",
            ),
            (
                "salt",
                &|files| flip(&files[2], 30),
                Some("life 3"),
                "life 1",
            ),
            (
                "begin",
                &|files| flip(&files[2], 60),
                Some("life 3"),
                "life 1",
            ),
            (
                "twice",
                &|files| {
                    flip(&files[1], puts_of(&files[1], "k")[0] + 20);
                    let at = puts_of(&files[2], "many:9")[0];
                    flip(&files[2], at + 2);
                },
                Some("life 3"),
                "life 0",
            ),
            (
                "overwritten",
                &|files| {
                    let mut bytes = fs::read(&files[2]).expect("there");
                    let at = puts_of(&files[2], "many:3000")[0] + 3;
                    bytes[at..at + 1000].fill(0);
                    fs::write(&files[2], bytes).expect("written");
                },
                Some("life 3"),
                "life 2",
            ),
            (
                "first",
                &|files| flip(&files[0], puts_of(&files[0], "k")[0] + 20),
                Some("life 3"),
                "",
            ),
        ];
        for (name, harm, skipped, cut) in table {
            for choice in ["--skip", "--cut"] {
                let own = format!("{name}{choice}");
                place.copy("a", &own);
                harm(&place.files(&own, ".wal"));
                let why = refusal(place.command(&own, &[]));
                assert!(why.contains(".wal"), "{name}: {why}");
                let directory = place.of_node(&own);
                let (out, _) = said(&["repair", choice, "--data-dir", text(&directory)], 0);
                for _ in 0..2 {
                    let process = place.start(&own, &[]);
                    let mut client = Client::connect(process.address);
                    let found = get(&mut client, "k");
                    if choice == "--skip" {
                        assert_eq!(found.as_deref(), *skipped, "{own}: {out}");
                    } else {
                        assert_eq!(found.unwrap_or_default(), *cut, "{own}: {out}");
                    }
                    kill(process);
                }
            }
        }
    });
}

/// A snapshot of a node that runs, and the log that belongs to it.
#[test]
fn a_snapshot_whose_log_is_damaged() {
    plain_and_encrypted("needed", |place| {
        type Harm<'a> = (&'a str, &'a dyn Fn(&Path), bool);
        let process = place.start("a", &[]);
        let mut client = Client::connect(process.address);
        write_many(&mut client, "many");
        set(&mut client, "k", b"old", &[]);
        let made = client.post("/admin/snapshot", "");
        assert_eq!(made.status, 200, "{}", made.text());
        set(&mut client, "k", b"new", &[]);
        stop(process);
        let snapshot = &place.files("a", ".snap")[0];
        let shown = inspected(snapshot, 0);
        assert_eq!(shown["records"], MANY as u64 + 1);
        assert_eq!(shown["log_needed_to"]["segment"], 2);
        // What is done to the log, and whether that leaves something of it.
        let table: &[Harm<'_>] = &[
            (
                "missing",
                &|file| fs::remove_file(file).expect("removed"),
                false,
            ),
            ("salt", &|file| flip(file, 30), false),
            ("header", &|file| flip(file, 20), true),
            (
                "short",
                &|file| {
                    let bytes = fs::read(file).expect("there");
                    fs::write(file, &bytes[..47]).expect("written");
                },
                false,
            ),
        ];
        for (name, harm, leaves_some) in table {
            for choice in ["--skip", "--cut"] {
                let own = format!("{name}{choice}");
                place.copy("a", &own);
                harm(&place.files(&own, ".wal")[0]);
                let why = refusal(place.command(&own, &[]));
                assert!(why.contains(".wal"), "{name}: {why}");
                let directory = place.of_node(&own);
                let (out, _) = said(&["repair", choice, "--data-dir", text(&directory)], 0);
                for life in 0..3 {
                    let process = place.start(&own, &[]);
                    let mut client = Client::connect(process.address);
                    let found = get(&mut client, "k");
                    let expected = match (choice, leaves_some) {
                        ("--skip", true) => Some("new"),
                        ("--skip", false) => None,
                        _ => Some("old"),
                    };
                    assert_eq!(found.as_deref(), expected, "{own}, life {life}: {out}");
                    let count = items(process.address);
                    let all = MANY as u64 + 1;
                    let expected = if expected.is_some() { all } else { 0 };
                    assert_eq!(count, expected + life, "{own}, life {life}: {out}");
                    set(&mut client, &format!("life:{life}"), b"here", &[]);
                    kill(process);
                }
            }
        }
    });
}

/// What a crash leaves of a segment that was only begun is no damage; and what goes on in its place is found again.
#[test]
fn a_segment_without_a_header_is_torn() {
    plain_and_encrypted("torn", |place| {
        let mut client;
        let process = place.start("a", &[]);
        client = Client::connect(process.address);
        set(&mut client, "k", b"first", &[]);
        kill(process);
        let empty = fs::File::create(place.of_node("a").join("log-0000000000000002.wal"));
        empty.and_then(|file| file.set_len(1 << 20)).expect("made");
        let directory = place.of_node("a");
        let (out, _) = said(&["repair", "--data-dir", text(&directory)], 0);
        assert!(out.contains("there is nothing to repair"), "{out}");
        for life in 0..3 {
            let process = place.start("a", &[]);
            client = Client::connect(process.address);
            assert_eq!(get(&mut client, "k").as_deref(), Some("first"));
            set(&mut client, &format!("life:{life}"), b"here", &[]);
            stop(process);
        }
        let process = place.start("a", &[]);
        assert_eq!(items(process.address), 4);
        stop(process);
    });
}

#[test]
fn a_damaged_snapshot_is_made_again_of_what_can_be_read() {
    plain_and_encrypted("snapshot", |place| {
        type Harm<'a> = (&'a str, &'a dyn Fn(&Path));
        let process = place.start("a", &[]);
        let mut client = Client::connect(process.address);
        write_many(&mut client, "many");
        set(&mut client, "k", b"old", &[]);
        let file = place.path("backup");
        let url = format!("--url=http://{}", process.address);
        said(&["backup", &url, "--to", text(&file)], 0);
        stop(process);
        let directory = place.of_node("b");
        said(&["restore", text(&file), "--data-dir", text(&directory)], 0);
        let process = place.start("b", &[]);
        let mut client = Client::connect(process.address);
        set(&mut client, "k", b"new", &[]);
        stop(process);

        let len = fs::metadata(&place.files("b", ".snap")[0])
            .expect("there")
            .len() as usize;
        let table: &[Harm<'_>] = &[
            ("middle", &|file| flip(file, len / 2)),
            ("header", &|file| flip(file, 20)),
            ("salt", &|file| flip(file, 30)),
            ("end", &|file| flip(file, len - 20)),
            ("cut", &|file| {
                let bytes = fs::read(file).expect("there");
                fs::write(file, &bytes[..len * 3 / 4]).expect("written");
            }),
            ("torn out", &|file| {
                let mut bytes = fs::read(file).expect("there");
                bytes[len / 4..len / 2].fill(0);
                fs::write(file, bytes).expect("written");
            }),
            ("gone", &|file| fs::remove_file(file).expect("removed")),
        ];
        for (name, harm) in table {
            for choice in ["--skip", "--cut"] {
                let own = format!("{name}{choice}");
                place.copy("b", &own);
                harm(&place.files(&own, ".snap")[0]);
                if *name == "gone" {
                    // From the first segment on, a log is as good as any.
                    kill(place.start(&own, &[]));
                    continue;
                }
                let why = refusal(place.command(&own, &[]));
                assert!(why.contains(".snap"), "{name}: {why}");
                let directory = place.of_node(&own);
                let (out, _) = said(&["repair", choice, "--data-dir", text(&directory)], 0);
                for _ in 0..2 {
                    let process = place.start(&own, &[]);
                    let mut client = Client::connect(process.address);
                    let count = items(process.address);
                    if choice == "--cut" {
                        assert_eq!(count, 0, "{own}: {out}");
                    } else {
                        assert_eq!(
                            get(&mut client, "k").as_deref(),
                            Some("new"),
                            "{own}: {out}"
                        );
                        let least = match *name {
                            "salt" => 1,
                            "cut" | "torn out" => MANY / 2,
                            _ => MANY * 9 / 10,
                        };
                        assert!(count >= least as u64, "{own}: {count}: {out}");
                    }
                    kill(process);
                }
            }
        }
    });
}

/// Numbers that look random, the same for the same seed.
fn draw(seed: &mut u64, below: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 33) as usize % below
}

/// Damages a file of a node somewhere, and leaves the end of it as it is: what is missing there may be what a crash leaves.
fn damage(place: &Place, own: &str, seed: &mut u64) -> String {
    let files = [place.files(own, ".wal"), place.files(own, ".snap")].concat();
    let file = &files[draw(seed, files.len())];
    let name = file.file_name().expect("a name").to_string_lossy();
    let mut bytes = fs::read(file).expect("there");
    let most = bytes.len().saturating_sub(100);
    let is_last = Some(file) == place.files(own, ".wal").last();
    let done = match draw(seed, 8) {
        _ if most < 200 => format!("{name} is left as it is"),
        0 if !is_last => {
            fs::remove_file(file).expect("removed");
            return format!("{name} is removed");
        }
        1 | 2 => {
            let len = 1 + draw(seed, 3000.min(most / 2));
            let at = draw(seed, most - len);
            bytes[at..at + len].fill(0);
            format!("{name} is zeros from {at} for {len}")
        }
        3 => {
            let at = draw(seed, 48);
            bytes[at] ^= 1 << draw(seed, 8);
            format!("{name} has a flipped bit in its header at {at}")
        }
        4 => {
            let (from, to) = (draw(seed, most), draw(seed, most));
            let len = draw(seed, 500.min(most - from.max(to)) + 1);
            bytes.copy_within(from..from + len, to);
            format!("{name} has {len} bytes of {from} at {to}")
        }
        _ => {
            let at = draw(seed, most);
            bytes[at] ^= 1 << draw(seed, 8);
            format!("{name} has a flipped bit at {at}")
        }
    };
    fs::write(file, bytes).expect("written");
    done
}

/// After any damage that a start refuses, and a repair, a key has its last value or none.
#[test]
fn what_is_left_after_any_damage_is_no_older_value() {
    plain_and_encrypted("random", |place| {
        const KEYS: usize = 300;
        const CASES: usize = 24;
        let mut last = vec![0; KEYS];
        let mut seed = 0x9E37_79B9_7F4A_7C15;
        let mut number = 0;
        for life in 0..4 {
            let process = place.start("a", &[]);
            let mut client = Client::connect(process.address);
            for step in 0..600 {
                let key = draw(&mut seed, KEYS);
                number += 1;
                last[key] = number;
                set(
                    &mut client,
                    &format!("key:{key}"),
                    number.to_string().as_bytes(),
                    &[],
                );
                if life == 1 && step == 300 {
                    assert_eq!(client.post("/admin/snapshot", "").status, 200);
                }
            }
            stop(process);
        }
        let (mut refused, mut kept) = (0, 0);
        for case in 0..CASES {
            place.copy("a", "b");
            let done: Vec<String> = (0..=draw(&mut seed, 3))
                .map(|_| damage(place, "b", &mut seed))
                .collect();
            let directory = place.of_node("b");
            let before = henge(&["repair", "--data-dir", text(&directory)]);
            let report = String::from_utf8_lossy(&before.stdout).into_owned();
            if before.status.code() == Some(1) {
                refused += 1;
                refusal(place.command("b", &[]));
                let repaired = henge(&["repair", "--skip", "--data-dir", text(&directory)]);
                let err = String::from_utf8_lossy(&repaired.stderr);
                if err.contains("reads formats 1 and 2 only") {
                    // A header that is damaged twice may be that of a later version.
                    fs::remove_dir_all(&directory).expect("removed");
                    continue;
                }
                assert_eq!(repaired.status.code(), Some(0), "{done:?}: {err}");
                let out = String::from_utf8_lossy(&repaired.stdout);
                for life in 0..2 {
                    let process = place.start("b", &[]);
                    let mut client = Client::connect(process.address);
                    for (key, last) in last.iter().enumerate().filter(|(_, last)| **last > 0) {
                        if let Some(found) = get(&mut client, &format!("key:{key}")) {
                            let case = format!("case {case}, life {life}: {done:?}: {out}");
                            assert_eq!(found, last.to_string(), "{case}");
                            kept += 1;
                        }
                    }
                    set(&mut client, &format!("new:{case}:{life}"), b"here", &[]);
                    kill(process);
                }
                fs::remove_dir_all(&directory).expect("removed");
                place.copy("a", "b");
            } else {
                assert_eq!(before.status.code(), Some(0), "{done:?}: {before:?}");
                assert!(report.contains("nothing to repair"), "{report}");
                stop(place.start("b", &[]));
            }
            fs::remove_dir_all(&directory).expect("removed");
        }
        assert!(refused > CASES / 2 && kept > 0, "{refused} {kept}");
    });
}
