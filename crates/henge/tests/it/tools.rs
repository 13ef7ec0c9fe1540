//! `henge inspect`, `repair`, `restore` and `backup`, as a shell runs them, on the files of real nodes. Here are all but repairs.

mod encryption;
mod repair;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, Process};
use crate::disk_used::assert_private;

/// The name of every node here, and so of its directory.
const NODE: &str = "n1";

/// The variable that gives keys to nodes and tools.
const KEYS_VARIABLE: &str = "HENGE_PERSISTENCE__KEYS";

thread_local! {
    /// The keys that nodes and tools of this thread's test are given.
    static KEYS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The same digits make a key again.
fn key(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// Does it with plain files and with encrypted ones.
fn plain_and_encrypted(test: &str, run: impl Fn(&Place)) {
    run(&Place::new(test));
    let place = Place::new(&format!("{test}-encrypted"));
    KEYS.set(Some(format!("1 {},4 {}", key('1'), key('4'))));
    run(&place);
    KEYS.set(None);
}

/// A directory of a test's own, which goes with it.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let name = format!("tools-{test}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory of the node whose `persistence.dir` has this name.
    fn of_node(&self, name: &str) -> PathBuf {
        self.path(name).join(NODE)
    }

    /// Starts a node whose `persistence.dir` has this name.
    fn start(&self, name: &str, settings: &[&str]) -> Process {
        Process::start(self.command(name, settings))
    }

    fn command(&self, name: &str, settings: &[&str]) -> Command {
        let dir = format!("--set=persistence.dir={}", self.path(name).display());
        let id = format!("--node-id={NODE}");
        let interval = "--set=persistence.sync_interval_ms=10";
        let settings = [&[&dir[..], &id, interval], settings].concat();
        let mut command = Process::command(&settings);
        KEYS.with_borrow(|keys| {
            if let Some(keys) = keys {
                command.env(KEYS_VARIABLE, keys);
                command.arg("--set=persistence.encryption=aes-256-gcm");
            }
        });
        command
    }

    /// A copy of the files of a node, to be started as another.
    fn copy(&self, from: &str, to: &str) {
        fs::create_dir_all(self.of_node(to)).expect("a directory");
        for entry in fs::read_dir(self.of_node(from)).expect("it is there") {
            let entry = entry.expect("an entry");
            let to = self.of_node(to).join(entry.file_name());
            fs::copy(entry.path(), to).expect("it is copied");
        }
    }

    /// The names of the files of a node that end so.
    fn files(&self, name: &str, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.of_node(name)).expect("it is there");
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn henge(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command.args(arguments).env_clear();
    KEYS.with_borrow(|keys| command.envs(keys.iter().map(|keys| (KEYS_VARIABLE, keys))));
    command.output().expect("the binary of this build runs")
}

/// What it printed, if it ended with this code.
fn said(arguments: &[&str], code: i32) -> (String, String) {
    let output = henge(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {out}{err}"
    );
    if code == 0 {
        assert_eq!(err, "", "{arguments:?}");
    } else {
        assert_eq!(err.lines().count(), 1, "{arguments:?}: {err}");
    }
    (out, err)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target directory is text")
}

fn stop(process: Process) {
    process.signal(Signal::TERM);
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}

fn kill(process: Process) {
    process.signal(Signal::KILL);
    process.wait();
}

/// What a node says when it does not start.
fn refusal(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    let said = err.lines().find(|line| line.starts_with("henge: "));
    said.unwrap_or_else(|| panic!("no reason in {err}"))
        .to_owned()
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let byte = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

fn set(client: &mut Client, key: &str, value: &[u8], headers: &[(&str, &str)]) {
    let put = client.request("PUT", &format!("/cache/{key}"), headers, value);
    assert_eq!(put.status, 204, "{}", put.text());
}

fn get(client: &mut Client, key: &str) -> Option<String> {
    let got = client.get(&format!("/cache/{key}"));
    assert!(matches!(got.status, 200 | 404), "{}", got.text());
    (got.status == 200).then(|| got.text())
}

/// Items of all kinds; gives their keys.
fn fill(address: SocketAddr) -> Vec<String> {
    let mut client = Client::connect(address);
    let mut keys = Vec::new();
    for number in 0..300 {
        let (key, value) = (format!("small:{number}"), format!("value {number}"));
        set(&mut client, &key, value.as_bytes(), &[]);
        keys.push(key);
    }
    for number in 0..50 {
        let key = format!("brief:{number}");
        set(&mut client, &key, b"not for long", &[("x-ttl", "3600.5")]);
        keys.push(key);
    }
    for number in 0..20 {
        let key = format!("json:{number}");
        let body = format!(r#"{{"key":"{key}","value":{{"number":{number},"list":[1,2]}}}}"#);
        assert_eq!(client.post("/set", &body).status, 200);
        keys.push(key);
    }
    let typed = ("content-type", "text/html; charset=utf-8");
    set(&mut client, "typed", b"<p>hello</p>", &[typed]);
    set(
        &mut client,
        "compressed",
        "again and ".repeat(5000).as_bytes(),
        &[typed],
    );
    set(
        &mut client,
        "large",
        &noise(100 * 1024, 7),
        &[("x-ttl", "7200")],
    );
    set(&mut client, "empty", b"", &[]);
    set(&mut client, "gone", b"not in the backup", &[]);
    assert_eq!(
        client.request("DELETE", "/cache/gone", &[], b"").status,
        204
    );
    keys.extend(["typed", "compressed", "large", "empty"].map(str::to_owned));
    keys
}

/// What a client sees of an item: body, media type, version, and seconds left.
type Seen = (Vec<u8>, Option<String>, Option<String>, Option<f64>);

fn see(address: SocketAddr, keys: &[String]) -> BTreeMap<String, Seen> {
    let mut client = Client::connect(address);
    keys.iter()
        .map(|key| {
            let got = client.get(&format!("/cache/{key}"));
            assert_eq!(got.status, 200, "{key}");
            let header = |name: &str| got.header(name).map(str::to_owned);
            let (kind, version) = (header("content-type"), header("etag"));
            let left = header("x-ttl").map(|ttl| ttl.parse().expect("seconds"));
            (key.clone(), (got.body, kind, version, left))
        })
        .collect()
}

/// All is as it was, and no lifetime began anew.
fn assert_same(before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) {
    for (key, (body, kind, version, left)) in before {
        let after = &after[key];
        assert!(body == &after.0, "{key} has another value");
        assert_eq!((kind, version), (&after.1, &after.2), "{key}");
        match (left, after.3) {
            (None, None) => {}
            (Some(before), Some(after)) => assert!(after > 0.0 && after <= *before, "{key}"),
            (before, after) => panic!("{key}: {before:?} {after:?}"),
        }
    }
}

/// The same where all was written anew.
fn assert_same_but_for_versions(before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) {
    let mut before = before.clone();
    for (key, seen) in &mut before {
        seen.2.clone_from(&after[key].2);
    }
    assert_same(&before, after);
}

fn items(address: SocketAddr) -> u64 {
    let mut keys = 0;
    let mut client = Client::connect(address);
    let mut cursor = "0".to_owned();
    loop {
        let page = client
            .get(&format!("/keys?limit=1000&cursor={cursor}"))
            .json();
        keys += page["keys"].as_array().map_or(0, Vec::len) as u64;
        page["cursor"]
            .as_str()
            .unwrap_or("0")
            .clone_into(&mut cursor);
        if cursor == "0" {
            return keys;
        }
    }
}

fn inspected(path: &Path, code: i32) -> Value {
    let output = henge(&["inspect", "--json", text(path)]);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// The records of a segment that put this key: where they begin.
fn puts_of(path: &Path, key: &str) -> Vec<usize> {
    let (out, _) = said(&["inspect", "--records", text(path)], 0);
    let fields = out.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() == 7 && fields[3] == "put" && fields[4] == key)
        .map(|fields| fields[0].parse().expect("a place"))
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it is there");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("it is written");
}

#[test]
fn a_backup_makes_the_same_cache_again() {
    let place = Place::new("backup");
    for (kind, setting) in [
        ("log", "persistence.enabled=true"),
        ("memory", "persistence.enabled=false"),
    ] {
        let setting = format!("--set={setting}");
        let (old, new) = (format!("{kind}-old"), format!("{kind}-new"));
        let process = place.start(&old, &[&setting]);
        let keys = fill(process.address);
        let before = see(process.address, &keys);
        let file = place.path(&format!("{kind}.backup"));
        let url = format!("--url=http://{}", process.address);
        let (out, _) = said(&["backup", &url, "--to", text(&file)], 0);
        assert!(out.contains("374 records"), "{out}");
        let (_, err) = said(&["backup", &url, "--to", text(&file)], 3);
        assert!(err.contains("--force replaces it"), "{err}");
        said(&["backup", "--force", &url, "--to", text(&file)], 0);
        assert_private(&file);
        // A link could be to a device; what it is to stays, and so does the link.
        let link = place.path(&format!("{kind}.link"));
        std::os::unix::fs::symlink("/dev/null", &link).expect("it is ours");
        let (_, err) = said(&["backup", "--force", &url, "--to", text(&link)], 3);
        assert!(err.contains("is no file, and is not replaced"), "{err}");
        assert!(link.is_symlink());
        let count = items(process.address);
        kill(process);

        let shown = inspected(&file, 0);
        assert_eq!(
            (&shown["kind"], &shown["records"]),
            (&"snapshot".into(), &374.into())
        );
        let (out, _) = said(&["inspect", "--records", text(&file)], 0);
        assert!(out.contains("\tput\tlarge\t102400\t"), "{out}");
        assert!(
            out.contains("\nstate         whole; it ends at byte "),
            "{out}"
        );

        let directory = place.of_node(&new);
        let (out, _) = said(&["restore", text(&file), "--data-dir", text(&directory)], 0);
        assert!(out.starts_with("restored 374 records of 20"), "{out}");
        assert_private(&place.path(&new));
        let process = place.start(&new, &[]);
        assert_same(&before, &see(process.address, &keys));
        assert_eq!(items(process.address), count);
        // And so does a node that runs, where all are written anew.
        let live = place.start(&format!("{kind}-live"), &[&setting]);
        let live_url = format!("--url=http://{}", live.address);
        let (out, _) = said(&["restore", text(&file), &live_url], 0);
        assert!(out.contains("which has 374 keys now"), "{out}");
        assert_same_but_for_versions(&before, &see(live.address, &keys));
        kill(live);
        // What it writes from now on is in a log behind it.
        let mut client = Client::connect(process.address);
        set(&mut client, "small:1", b"newer", &[]);
        kill(process);
        for _ in 0..2 {
            let process = place.start(&new, &[]);
            let mut client = Client::connect(process.address);
            assert_eq!(get(&mut client, "small:1").as_deref(), Some("newer"));
            assert_eq!(get(&mut client, "small:2").as_deref(), Some("value 2"));
            stop(process);
        }
    }
}

#[test]
fn pages_of_a_backup() {
    let place = Place::new("pages");
    let process = place.start("a", &["--set=compression.algorithm=none"]);
    let mut client = Client::connect(process.address);
    // All in one partition, and more than a page.
    for number in 0..200 {
        let key = format!("%7Btag%7D{number}");
        set(&mut client, &key, &noise(50 * 1024, number + 1), &[]);
    }
    let mut pages = 0;
    for partition in 0..1024 {
        let mut next = Some("0".to_owned());
        while let Some(at) = next {
            let page = client.get(&format!("/admin/backup?partition={partition}&place={at}"));
            assert_eq!(page.status, 200);
            assert!(page.body.len() < 5 << 20, "{}", page.body.len());
            assert_eq!(&page.body[..8], b"HENGESNP");
            pages += 1;
            next = page.header("x-henge-next-place").map(str::to_owned);
        }
    }
    assert!(pages >= 1024 + 2, "{pages}");
    for (query, wrong) in [
        ("", "partition is missing"),
        ("?partition=1024", "found \"1024\", expected 0 to 1023"),
        (
            "?partition=1&place=x",
            "expected what X-Henge-Next-Place said",
        ),
        ("?partition=1&plaec=1", "unknown parameter"),
    ] {
        let refused = client.get(&format!("/admin/backup{query}"));
        assert_eq!(
            (refused.status, refused.code()),
            (400, "invalid_query".to_owned())
        );
        let detail = refused.json()["detail"].to_string().replace('\\', "");
        assert!(detail.contains(wrong), "{detail}");
    }
    let file = place.path("b");
    let url = format!("-url=http://{}", process.address);
    let (out, _) = said(&["backup", &url, "-to", text(&file)], 0);
    assert!(out.contains("200 records"), "{out}");
    stop(process);
    let (_, err) = said(&["backup", &url, "-to", text(&place.path("c"))], 3);
    assert!(err.contains("no connection to the node"), "{err}");
    assert!(!place.path("c").exists() && !place.path("c.part").exists());
}

#[test]
fn what_a_killed_node_leaves_is_whole() {
    plain_and_encrypted("inspect", |place| {
        let process = place.start("a", &[]);
        let keys = fill(process.address);
        kill(process);
        let files = place.files("a", ".wal");
        assert_eq!(files.len(), 1);
        let shown = inspected(&files[0], 0);
        assert_eq!(shown["whole"], true);
        assert_eq!(shown["effects"]["put"], keys.len() as u64 + 1);
        assert_eq!(shown["effects"]["delete"], 1);
        assert_eq!(shown["records"]["started"], 1);
        assert_eq!(shown["keys"], keys.len() as u64 + 1);
        let (out, _) = said(&["inspect", "--records", "--json", text(&files[0])], 0);
        let lines = out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let puts = lines.filter(|line| line["operation"] == "put");
        assert_eq!(puts.count(), keys.len() + 1);
        let (out, _) = said(&["inspect", text(&files[0])], 0);
        assert!(out.contains("room behind that"), "{out}");
        // Some other file, and none.
        let other = place.path("other");
        fs::write(&other, [b'x'; 100]).expect("written");
        let (_, err) = said(&["inspect", text(&other)], 1);
        assert!(
            err.contains("neither a segment of a log nor a snapshot"),
            "{err}"
        );
        let (_, err) = said(&["inspect", text(&place.path("none"))], 3);
        assert!(err.contains("No such file"), "{err}");
        let (out, _) = said(&["repair", "--data-dir", text(&place.of_node("a"))], 0);
        assert!(out.contains("there is nothing to repair"), "{out}");
    });
}

#[test]
fn restore_takes_a_whole_file_and_an_empty_directory() {
    let place = Place::new("restore");
    let process = place.start("a", &[]);
    fill(process.address);
    let file = place.path("backup");
    let url = format!("--url=http://{}", process.address);
    said(&["backup", &url, "--to", text(&file)], 0);
    let directory = place.of_node("a");
    let (_, err) = said(&["restore", text(&file), "--data-dir", text(&directory)], 3);
    assert!(err.contains("in use by another process"), "{err}");
    stop(process);
    let (_, err) = said(&["restore", text(&file), "--data-dir", text(&directory)], 3);
    assert!(err.contains("choose a directory that is empty"), "{err}");

    let whole = fs::read(&file).expect("there");
    let directory = place.of_node("b");
    let broken = place.path("broken");
    for at in [3, 20, 60, whole.len() / 2, whole.len() - 5] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&broken, &bytes).expect("written");
        let (_, err) = said(
            &["restore", text(&broken), "--data-dir", text(&directory)],
            1,
        );
        assert!(
            err.contains("broken") && err.contains("nothing was restored"),
            "{err}"
        );
        said(&["inspect", text(&broken)], 1);
    }
    for len in [0, 47, 48, whole.len() / 2, whole.len() - 1] {
        fs::write(&broken, &whole[..len]).expect("written");
        said(
            &["restore", text(&broken), "--data-dir", text(&directory)],
            1,
        );
        let output = henge(&["inspect", text(&broken)]);
        assert_eq!(output.status.code(), Some(1), "{len}");
    }
    assert_eq!(place.files("b", ".snap"), [] as [PathBuf; 0]);
    assert_eq!(place.files("b", ".part"), [] as [PathBuf; 0]);
    let segment = &place.files("a", ".wal")[0];
    let (_, err) = said(
        &["restore", text(segment), "--data-dir", text(&directory)],
        3,
    );
    assert!(err.contains("a segment of a log"), "{err}");
    said(&["restore", text(&file), "--data-dir", text(&directory)], 0);
    let (_, err) = said(&["restore", text(&file), "--data-dir", text(&directory)], 3);
    assert!(
        err.contains("holds snapshot-0000000000000001.snap"),
        "{err}"
    );
}

/// What lies where a tool would write is another's, unless it made it.
#[test]
fn tools_remove_nothing_that_they_did_not_make() {
    let place = Place::new("mine");
    let (file, part) = (place.path("x"), place.path("x.part"));
    let mine = |path: &Path| fs::read_to_string(path).ok().as_deref() == Some("mine");
    fs::write(&part, "mine").expect("written");
    let nobody = "--url=http://127.0.0.1:1";
    said(&["backup", nobody, "--to", text(&file)], 3);
    assert!(mine(&part), "a backup that had no connection removed it");
    let process = place.start("a", &[]);
    fill(process.address);
    let url = format!("--url=http://{}", process.address);
    for options in [&[][..], &["--force"]] {
        let arguments = [&["backup", &url, "--to", text(&file)], options].concat();
        let (_, err) = said(&arguments, 3);
        let expected = format!("{} is there: another backup", text(&part));
        assert!(err.contains(&expected), "{err}");
        assert!(mine(&part) && !file.exists());
    }
    fs::remove_file(&part).expect("it is there");
    said(&["backup", &url, "--to", text(&file)], 0);
    stop(process);
    let directory = place.of_node("b");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("lock"), "mine").expect("written");
    said(&["restore", text(&file), "--data-dir", text(&directory)], 0);
    assert!(mine(&directory.join("lock")));
}

#[test]
fn a_directory_is_of_one_process() {
    let place = Place::new("lock");
    let process = place.start("a", &[]);
    let why = refusal(place.command("a", &[]));
    assert!(why.contains("in use by another process"), "{why}");
    let directory = place.of_node("a");
    let (_, err) = said(&["repair", "--data-dir", text(&directory)], 3);
    assert!(err.contains("in use by another process"), "{err}");
    stop(process);
    said(&["repair", "--data-dir", text(&directory)], 0);
    let (_, err) = said(&["repair", "--data-dir", text(&place.path("none"))], 3);
    assert!(err.contains("cannot open the data directory"), "{err}");
}
