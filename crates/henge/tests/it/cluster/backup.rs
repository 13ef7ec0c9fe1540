//! A backup of a cluster, on real processes: each partition from its leader, also where one is killed meanwhile; and another cache is
//! made of it.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Ring;
use crate::client::{Client, Response, skipped};
use crate::tools::noise;

/// Ends the writes of a test also where that fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) const KEYS: usize = 300;
/// Lifetimes that are long enough for the test, in seconds.
pub(super) const LIFETIME: u64 = 3_000;

pub(super) fn henge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(super) fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// A value that compresses or not, and is text or not.
pub(super) fn value(number: usize) -> Vec<u8> {
    match number % 3 {
        0 => format!("value {number} ").repeat(200).into_bytes(),
        1 => (0..=255_u8).map(|byte| byte.wrapping_mul(37)).collect(),
        _ => format!("short {number}").into_bytes(),
    }
}

pub(super) fn put(client: &mut Client, key: &str, value: &[u8], number: usize) -> bool {
    let kind = format!("application/x-{}", number % 7);
    let lifetime = format!("max-age={LIFETIME}");
    let mut headers = vec![("content-type", &*kind)];
    if number.is_multiple_of(2) {
        headers.push(("cache-control", &lifetime));
    }
    client
        .request("PUT", &format!("/cache/{key}"), &headers, value)
        .status
        == 204
}

pub(super) fn seconds_left(client: &mut Client, key: &str) -> Option<f64> {
    client.get(&format!("/ttl?key={key}")).json()["ttl"].as_f64()
}

pub(super) fn check(response: &Response, number: usize) {
    assert_eq!(response.status, 200, "key {number}");
    assert!(response.body == value(number), "key {number}");
    let kind = format!("application/x-{}", number % 7);
    assert_eq!(
        response.header("content-type"),
        Some(&*kind),
        "key {number}"
    );
}

#[test]
fn a_backup_of_three_outlives_one_of_them_and_is_a_cache_again() {
    let mut ring = Ring::new().set("cluster.replication_factor=3").formed(3);
    for n in 1..=3 {
        ring.until("all are up", || {
            let status = ring.status(n);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            members.len() == 3 && members.iter().all(|member| member["state"] == "up")
        });
    }
    for number in 0..KEYS {
        let key = format!("key{number}");
        let node = 1 + number % 3;
        ring.until("each is written", || {
            put(&mut ring.http(node), &key, &value(number), number)
        });
    }
    // Some are written all the time.
    let is_over = AtomicBool::new(false);
    let address = ring.address(3);
    let file = ring.data.join("cluster.backup");
    let part = ring.data.join("cluster.backup.part");
    let name = file.to_str().expect("a path that is text").to_owned();
    let url = format!("http://{}", ring.address(2));
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                // What is refused while a leader changes is none of this test's business.
                let mut client = Client::connect(address);
                put(
                    &mut client,
                    &format!("meanwhile{}", number % 50),
                    b"x",
                    number,
                );
            }
        });
        let _ends = Ends(&is_over);
        let backup = henge(&["backup", "--url", &url, "--to", &name]).spawn();
        let backup = backup.expect("it starts");
        ring.until("it has begun", || part.exists() || file.exists());
        ring.kill(1);
        backup.wait_with_output().expect("it ends")
    });
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(!part.exists());

    let mut other = Ring::new();
    let directory = other.directory(1);
    let directory = directory.to_str().expect("a path that is text");
    let restored = henge(&["restore", &name, "--data-dir", directory]).output();
    let restored = restored.expect("it runs");
    assert_eq!(restored.status.code(), Some(0), "{}", told(&restored));
    other.start(1, "");
    other.wait_until_ready([1]);
    let mut client = other.http(1);
    for number in 0..KEYS {
        let key = format!("key{number}");
        check(&client.get(&format!("/cache/{key}")), number);
        let left = seconds_left(&mut client, &key);
        let has_lifetime = number % 2 == 0;
        assert_eq!(left.is_some(), has_lifetime, "{key}");
        let is_right = left.is_none_or(|left| left > 0.0 && left <= LIFETIME as f64);
        assert!(is_right, "{key}: {left:?}");
    }
    // Where nobody is there is no backup; and a node that follows gives nothing of what another one leads.
    let second = format!("{name}.2");
    let mut nobody = henge(&["backup", "--url", "http://127.0.0.1:1", "--to", &second]);
    let nobody = nobody.output().expect("it runs");
    assert_eq!(nobody.status.code(), Some(3), "{}", told(&nobody));
    let mut client = ring.http(2);
    let refused = (0..1024).filter(|partition| {
        let page = client.get(&format!("/admin/backup?partition={partition}&leads=true"));
        let is_refused = page.status != 200;
        if is_refused {
            assert_eq!((page.status, page.code()), (503, "try_again".to_owned()));
        }
        is_refused
    });
    let refused = refused.count();
    assert!(
        refused > 0 && refused < 1024,
        "{refused} of 1024 are led elsewhere"
    );
}

/// A backup that has no room leaves nothing under either name.
#[test]
fn a_backup_that_cannot_be_written_leaves_nothing() {
    let mut ring = Ring::new();
    ring.start(1, "");
    ring.wait_until_ready([1]);
    let mut client = ring.http(1);
    for number in 0..40 {
        let put = client.request(
            "PUT",
            &format!("/cache/k{number}"),
            &[],
            &noise(60_000, number + 1),
        );
        assert_eq!(put.status, 204);
    }
    let url = format!("http://{}", ring.address(1));
    let nowhere = ring.data.join("none").join("backup");
    let in_file = std::path::Path::new("/dev/null/backup");
    for to in [&nowhere, in_file] {
        let to = to.to_str().expect("a path that is text");
        let output = henge(&["backup", "--url", &url, "--to", to]).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(3), "{}", told(&output));
        assert!(told(&output).contains("no backup"), "{}", told(&output));
    }
    let place = ring.data.join("small");
    std::fs::create_dir_all(&place).expect("a directory");
    // All that is left on the disk is shown; sh is its first process there.
    let script = "mount -t tmpfs -o size=512k tmpfs \"$1\" || exit 77; \
        \"$2\" backup --url \"$3\" --to \"$1/backup\"; code=$?; ls -A \"$1\"; exit $code";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(&place)
        .args([env!("CARGO_BIN_EXE_henge"), &url])
        .stdin(Stdio::null());
    let output = command.output();
    // Its own code where it cannot make a place of its own, 77 where it cannot mount.
    let is_mounted = |output: &Output| !matches!(output.status.code(), Some(1 | 77));
    if !output.as_ref().is_ok_and(is_mounted) {
        skipped(
            "unshare",
            "no backup met a full disk: no file system can be mounted here",
        );
        return;
    }
    let output = output.expect("it ran");
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(output.stdout.is_empty(), "{}", told(&output));
    assert!(told(&output).contains("No space left"), "{}", told(&output));
}
