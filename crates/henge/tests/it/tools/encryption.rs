//! Encryption at rest, as an operator meets it: keys in files and in the environment, what a node without the right one says, a
//! change of keys, and what can be read of a disk without any.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    KEYS_VARIABLE, Place, fill, flip, get, henge, inspected, key, kill, refusal, said, see, set,
    stop, text,
};
use crate::client::{Client, Process};

const AES: &str = "--set=persistence.encryption=aes-256-gcm";
const CHACHA: &str = "--set=persistence.encryption=chacha20-poly1305";

/// Writes a key file of these keys, and gives its path.
fn key_file(place: &Place, name: &str, keys: &[(u32, char)]) -> PathBuf {
    let path = place.path(name);
    let lines: Vec<String> = keys
        .iter()
        .map(|(id, digit)| format!("{id} {}\n", key(*digit)))
        .collect();
    fs::write(&path, lines.concat()).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    path
}

fn with(path: &Path) -> String {
    format!("--set=persistence.key_file={}", path.display())
}

fn durability(process: &Process) -> serde_json::Value {
    let mut client = Client::connect(process.address);
    let status = client.get("/cluster/status").json();
    status["nodes"][0]["durability"].clone()
}

fn snapshot(process: &Process) {
    let made = Client::connect(process.address).post("/admin/snapshot", "");
    assert_eq!(made.status, 200, "{}", made.text());
}

/// All bytes of all files of a node.
fn all_bytes(place: &Place, name: &str) -> Vec<u8> {
    let files = place.files(name, "");
    assert!(files.len() > 2, "{files:?}");
    files
        .iter()
        .flat_map(|file| fs::read(file).expect("it is there"))
        .collect()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// What a command says that is refused: one line, and the exit code.
fn refused(mut command: std::process::Command) -> (String, Option<i32>) {
    let output = command.output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = err
        .lines()
        .filter(|line| line.starts_with("henge: "))
        .collect();
    assert_eq!(lines.len(), 1, "{err}");
    (lines[0].to_owned(), output.status.code())
}

#[test]
fn a_killed_node_has_it_all_and_the_disk_shows_nothing() {
    let place = Place::new("rest");
    let keys = key_file(&place, "keys", &[(3, 'a')]);
    let given = with(&keys);
    for (name, settings) in [
        ("plain", &[][..]),
        ("aes", &[AES, &given]),
        ("chacha", &[CHACHA, &given]),
    ] {
        let process = place.start(name, settings);
        let all = fill(process.address);
        let before = see(process.address, &all);
        snapshot(&process);
        let mut client = Client::connect(process.address);
        set(&mut client, "later", b"after the snapshot", &[]);
        kill(process);
        let bytes = all_bytes(&place, name);
        for part in [
            "small:1",
            "value 123",
            "text/html",
            "later",
            "after the snapshot",
        ] {
            assert_eq!(has(&bytes, part), name == "plain", "{part} in {name}");
        }
        let process = place.start(name, settings);
        super::assert_same(&before, &see(process.address, &all));
        let mut client = Client::connect(process.address);
        assert_eq!(
            get(&mut client, "later").as_deref(),
            Some("after the snapshot")
        );
        assert_eq!(get(&mut client, "gone"), None);
        stop(process);
    }
}

#[test]
fn whose_key_is_wrong_does_not_start() {
    let place = Place::new("wrong");
    let right = with(&key_file(&place, "right", &[(2, '2')]));
    let process = place.start("a", &[AES, &right]);
    set(&mut Client::connect(process.address), "k", b"v", &[]);
    kill(process);
    let wrong = with(&key_file(&place, "wrong", &[(2, '3')]));
    let other = with(&key_file(&place, "other", &[(1, '2'), (7, '2')]));
    let log = "log-0000000000000001.wal";
    let before = fs::read(place.of_node("a").join(log)).expect("it is there");
    let other_file = place.path("other").display().to_string();
    for (settings, expected) in [
        (
            vec![AES, &wrong],
            format!("henge: {log}: key 2 is not the one that it was encrypted with"),
        ),
        (
            vec![AES, &other],
            format!("henge: {log}: encrypted with key 2, and {other_file} has only keys 1, 7"),
        ),
        (
            vec![],
            format!(
                "henge: {log}: encrypted with key 2, and no key is given; expected persistence.key_file or the variable {KEYS_VARIABLE}"
            ),
        ),
    ] {
        assert_eq!(refusal(place.command("a", &settings)), expected);
        let after = fs::read(place.of_node("a").join(log)).expect("it is there");
        assert!(before == after, "{expected}");
    }
    // Encryption was switched off, and what is encrypted is read.
    let process = place.start("a", &[&right]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "k").as_deref(), Some("v"));
    assert_eq!(durability(&process)["encryption"], json!(null));
    assert_eq!(durability(&process)["keys_needed"], json!([2]));
    snapshot(&process);
    assert_eq!(durability(&process)["keys_needed"], json!([]));
    kill(process);
    let process = place.start("a", &[]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "k").as_deref(), Some("v"));
    stop(process);
}

/// From plain to encrypted, and from key to key: after the next snapshot the older is not needed any more.
#[test]
fn keys_are_changed_one_after_the_other() {
    let place = Place::new("rotation");
    let process = place.start("a", &[]);
    set(&mut Client::connect(process.address), "plain", b"0", &[]);
    assert_eq!(durability(&process)["keys_needed"], json!([]));
    kill(process);
    let first = key_file(&place, "keys", &[(1, 'b')]);
    let given = with(&first);
    let process = place.start("a", &[AES, &given]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "plain").as_deref(), Some("0"));
    set(&mut client, "first", b"1", &[]);
    let expected = json!({"cipher": "aes-256-gcm", "key_id": 1});
    assert_eq!(durability(&process)["encryption"], expected);
    kill(process);
    // Another line, and another cipher with it.
    key_file(&place, "keys", &[(1, 'b'), (20, 'c')]);
    let process = place.start("a", &[CHACHA, &given]);
    let mut client = Client::connect(process.address);
    set(&mut client, "second", b"2", &[]);
    let expected = json!({"cipher": "chacha20-poly1305", "key_id": 20});
    assert_eq!(durability(&process)["encryption"], expected);
    assert_eq!(durability(&process)["keys_needed"], json!([1, 20]));
    // As a repair keeps what it has replaced.
    let segment = &place.files("a", ".wal")[1];
    let kept = format!("{}.before-repair-2", text(segment));
    fs::copy(segment, &kept).expect("it is copied");
    snapshot(&process);
    assert_eq!(durability(&process)["keys_needed"], json!([1, 20]));
    fs::remove_file(kept).expect("it is there");
    set(&mut client, "third", b"3", &[]);
    snapshot(&process);
    assert_eq!(durability(&process)["keys_needed"], json!([20]));
    stop(process);
    for file in ["wal", "snap"]
        .iter()
        .flat_map(|ending| place.files("a", ending))
    {
        let (out, _) = said(&["inspect", text(&file)], 0);
        assert!(
            out.contains("\nencryption    chacha20-poly1305 with key 20\n"),
            "{out}"
        );
    }
    key_file(&place, "keys", &[(20, 'c')]);
    let process = place.start("a", &[CHACHA, &given]);
    let mut client = Client::connect(process.address);
    for (key, value) in [("plain", "0"), ("first", "1"), ("second", "2")] {
        assert_eq!(get(&mut client, key).as_deref(), Some(value), "{key}");
    }
    stop(process);
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let place = Place::new("unusable");
    let open = key_file(&place, "open", &[(1, 'd')]);
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("it is ours");
    let broken = place.path("broken");
    fs::write(&broken, format!("1 {}\n", &key('d')[1..])).expect("written");
    fs::set_permissions(&broken, Permissions::from_mode(0o400)).expect("it is ours");
    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let good = key_file(&place, "good", &[(1, 'd')]);
    let lines = format!("1 {}", key('d'));
    let open_line = format!(
        "henge: {}: others than its owner may use the key file (mode 0644); expected 0600 or 0400",
        open.display()
    );
    let table: &[(&[&str], Option<&str>, String)] = &[
        (&[AES, &with(&open)], None, open_line.clone()),
        // Also where nothing is encrypted.
        (&[&with(&open)], None, open_line),
        (
            &[AES, &with(&pipe)],
            None,
            format!(
                "henge: {}: expected a file of keys, and it is none",
                pipe.display()
            ),
        ),
        (
            &[AES, &with(&broken)],
            None,
            format!(
                "henge: {}, line 1: a key has 64 hexadecimal digits, not more and not less",
                broken.display()
            ),
        ),
        (
            &[AES],
            None,
            format!(
                "henge: persistence.encryption = \"aes-256-gcm\" needs a key; expected persistence.key_file or the variable {KEYS_VARIABLE}"
            ),
        ),
        (
            &[AES, &with(&good)],
            Some(&lines),
            format!(
                "henge: persistence.key_file and the variable {KEYS_VARIABLE} both give keys; expected one of them"
            ),
        ),
        (
            &[AES],
            Some("1 dd"),
            format!(
                "henge: the variable {KEYS_VARIABLE}, line 1: a key has 64 hexadecimal digits, not more and not less"
            ),
        ),
    ];
    for (settings, variable, expected) in table {
        let check = [&["config", "check"], *settings].concat();
        let mut check_command = std::process::Command::new(env!("CARGO_BIN_EXE_henge"));
        check_command.args(check).env_clear();
        let mut serve = place.command("a", settings);
        if let Some(variable) = variable {
            check_command.env(KEYS_VARIABLE, variable);
            serve.env(KEYS_VARIABLE, variable);
        }
        let (line, code) = refused(check_command);
        assert_eq!((&line, code), (expected, Some(2)));
        let (line, code) = refused(serve);
        assert_eq!(&line, expected);
        assert!(matches!(code, Some(1 | 2)));
    }
    // A slip in the name of the variable.
    let mut slip = place.command("a", &[]);
    slip.env("HENGE_PERSISTENCE_KEYS", &lines);
    let (line, _) = refused(slip);
    assert_eq!(
        line,
        format!(
            "henge: environment HENGE_PERSISTENCE_KEYS: unknown setting; did you mean {KEYS_VARIABLE}?"
        )
    );
    // What is right is shown nowhere.
    let mut print = std::process::Command::new(env!("CARGO_BIN_EXE_henge"));
    print.args(["config", "print", "--json", AES]).env_clear();
    let printed = print.env(KEYS_VARIABLE, &lines).output().expect("it runs");
    assert_eq!(printed.status.code(), Some(0));
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(
        printed.contains("aes-256-gcm") && !printed.contains("dddd"),
        "{printed}"
    );
    let mut serve = place.command("b", &[AES, "--set=log.level=trace"]);
    serve.env(KEYS_VARIABLE, &lines);
    let process = Process::start(serve);
    set(&mut Client::connect(process.address), "k", b"v", &[]);
    process.signal(rustix::process::Signal::TERM);
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("recovered") && !log.contains("dddd"), "{log}");
    assert!(!has(&all_bytes(&place, "b"), "dddd"));
}

const NOT_THE_ONE: &str = "key 6 is not the one that it was encrypted with";

fn no_key() -> String {
    format!(
        "encrypted with key 6, and no key is given; expected --key-file or the variable {KEYS_VARIABLE}"
    )
}

#[test]
fn tools_take_keys() {
    let place = Place::new("tools");
    let keys = key_file(&place, "keys", &[(6, 'e')]);
    let wrong = key_file(&place, "wrong", &[(6, 'f')]);
    let (keys, wrong) = (text(&keys), text(&wrong));
    let process = place.start("a", &[CHACHA, &with(Path::new(keys))]);
    let all = fill(process.address);
    let before = see(process.address, &all);
    let file = place.path("backup");
    let url = format!("--url=http://{}", process.address);
    let no_key = no_key();
    // A backup is no way around the keys, and leaves nothing where it fails.
    for (arguments, why) in [
        (&[][..], &no_key[..]),
        (&["--key-file", wrong], NOT_THE_ONE),
    ] {
        let command = [&["backup", &url, "--to", text(&file)], arguments].concat();
        let (_, err) = said(&command, 3);
        let expected = format!(
            "henge: no backup {}: what the node sends: {why}\n",
            file.display()
        );
        assert_eq!(err, expected);
        assert!(!file.exists() && !place.path("backup.part").exists());
    }
    said(
        &["backup", &url, "--to", text(&file), "--key-file", keys],
        0,
    );
    kill(process);
    let bytes = fs::read(&file).expect("it is there");
    assert!(has(&bytes, "HENGESNP") && !has(&bytes, "small:1"));

    let log = place.files("a", ".wal").remove(0);
    for file in [&file, &log] {
        let (out, _) = said(&["inspect", text(file)], 0);
        let row = format!(
            "\nencryption    chacha20-poly1305 with key 6\nnot shown     what it holds: {no_key}\n"
        );
        assert!(out.contains(&row), "{out}");
        assert!(
            out.contains("\nstate         whole; it ends at byte "),
            "{out}"
        );
        assert_eq!(inspected(file, 0)["not_shown"], no_key);
        let (_, err) = said(&["inspect", "--records", text(file)], 3);
        assert_eq!(err, format!("henge: {}: {no_key}\n", file.display()));
        let (_, err) = said(&["inspect", text(file), "--key-file", wrong], 3);
        assert_eq!(err, format!("henge: {}: {NOT_THE_ONE}\n", file.display()));
        let (out, _) = said(&["inspect", "--records", text(file), "--key-file", keys], 0);
        assert!(out.contains("\tput\tlarge\t102400\t"), "{out}");
    }

    let new = place.of_node("new");
    let live = place.start("live", &["--set=persistence.enabled=false"]);
    let live_url = format!("--url=http://{}", live.address);
    for to in [&["--data-dir", text(&new)][..], &[&live_url]] {
        for (arguments, why) in [
            (&[][..], &no_key[..]),
            (&["--key-file", wrong], NOT_THE_ONE),
        ] {
            let command = [&["restore", text(&file)], to, arguments].concat();
            let (_, err) = said(&command, 3);
            assert_eq!(err, format!("henge: {}: {why}\n", file.display()));
        }
    }
    said(&["restore", text(&file), &live_url, "--key-file", keys], 0);
    super::assert_same_but_for_versions(&before, &see(live.address, &all));
    stop(live);
    let command = [
        "restore",
        text(&file),
        "--data-dir",
        text(&new),
        "--key-file",
        keys,
    ];
    said(&command, 0);
    let made = place.files("new", ".snap").remove(0);
    assert_eq!(inspected(&made, 0)["encryption"], "chacha20-poly1305");
    let process = place.start("new", &[CHACHA, &with(Path::new(keys))]);
    super::assert_same(&before, &see(process.address, &all));
    stop(process);

    is_repaired_with_its_key_only(&place, keys, wrong);
}

/// What no key opens is not repaired, however damaged something else is.
fn is_repaired_with_its_key_only(place: &Place, keys: &str, wrong: &str) {
    let log = place.files("a", ".wal").remove(0);
    let no_key = no_key();
    let damaged = text(&place.of_node("a")).to_owned();
    flip(&log, 400);
    let name = "log-0000000000000001.wal";
    for (arguments, why) in [
        (&[][..], &no_key[..]),
        (&["--key-file", wrong], NOT_THE_ONE),
    ] {
        for way in [&[][..], &["--cut"], &["--skip"]] {
            let command = [&["repair", "--data-dir", &damaged], way, arguments].concat();
            let (_, err) = said(&command, 3);
            assert_eq!(err, format!("henge: {damaged}: {name}: {why}\n"));
        }
    }
    let node = place.of_node("a");
    assert!(!node.join(format!("{name}.before-repair")).exists());
    said(
        &[
            "repair",
            "--skip",
            "--data-dir",
            &damaged,
            "--key-file",
            keys,
        ],
        0,
    );
    let (out, _) = said(&["inspect", "--records", text(&log), "--key-file", keys], 0);
    assert!(out.contains("\tgap\t"), "{out}");
    let process = place.start("a", &[CHACHA, &with(Path::new(keys))]);
    stop(process);
}

/// With keys what tools make is encrypted, also of plain files.
#[test]
fn a_plain_backup_is_restored_encrypted() {
    let place = Place::new("become");
    let process = place.start("a", &[]);
    set(
        &mut Client::connect(process.address),
        "a:key",
        b"its value",
        &[],
    );
    let file = place.path("backup");
    let url = format!("--url=http://{}", process.address);
    said(&["backup", &url, "--to", text(&file)], 0);
    stop(process);
    assert!(has(&fs::read(&file).expect("it is there"), "its value"));
    let keys = key_file(&place, "keys", &[(6, 'e')]);
    let new = place.of_node("new");
    let command = [
        "restore",
        text(&file),
        "--data-dir",
        text(&new),
        "--key-file",
        text(&keys),
    ];
    said(&command, 0);
    let made = place.files("new", ".snap").remove(0);
    assert_eq!(inspected(&made, 0)["encryption"], "aes-256-gcm");
    assert!(!has(&fs::read(&made).expect("it is there"), "its value"));
    let output = henge(&["inspect", text(&made)]);
    assert_eq!(output.status.code(), Some(0));
    let process = place.start("new", &[AES, &with(&keys)]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "a:key").as_deref(), Some("its value"));
    stop(process);
}

/// Only its header is damaged: with the key that is found out, and without it the file is not taken for lost.
#[test]
fn a_header_is_made_anew_with_the_key() {
    let place = Place::new("header");
    let keys = key_file(&place, "keys", &[(6, 'e'), (8, '8')]);
    let process = place.start("a", &[CHACHA, &with(&keys)]);
    set(&mut Client::connect(process.address), "k", b"v", &[]);
    kill(process);
    let log = place.files("a", ".wal").remove(0);
    let directory = text(&place.of_node("a")).to_owned();
    let whole = fs::read(&log).expect("it is there");
    // Of the number, the cipher, the number of the key, and the checksum.
    for at in [16, 10, 12, 40] {
        fs::write(&log, &whole).expect("it is written");
        flip(&log, at);
        let (_, err) = said(&["repair", "--skip", "--data-dir", &directory], 3);
        assert!(
            err.contains(": log-0000000000000001.wal: encrypted with "),
            "{at}: {err}"
        );
        let wrong = key_file(&place, "wrong", &[(8, '7')]);
        let command = [
            "repair",
            "--skip",
            "--data-dir",
            &directory,
            "--key-file",
            text(&wrong),
        ];
        let (_, err) = said(&command, 3);
        assert!(err.contains(": log-0000000000000001.wal: "), "{at}: {err}");
        let command = [
            "repair",
            "--skip",
            "--data-dir",
            &directory,
            "--key-file",
            text(&keys),
        ];
        let (out, _) = said(&command, 0);
        assert!(
            out.contains("is made anew; the records behind it are whole"),
            "{at}: {out}"
        );
        assert!(fs::read(&log).expect("it is there") == whole, "{at}");
    }
    let process = place.start("a", &[CHACHA, &with(&keys)]);
    let mut client = Client::connect(process.address);
    assert_eq!(get(&mut client, "k").as_deref(), Some("v"));
    stop(process);
}
