//! `henge verify` as a shell runs it: a cluster of real processes under faults, a cluster that runs already, and histories of files.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::{DEADLINE, node, skipped};

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("henge-verify-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// `henge verify` in it; its own temporary files are in there as well.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        command
            .arg("verify")
            .args(line.split_whitespace())
            .current_dir(&self.0)
            .env("TMPDIR", &self.0);
        command
    }

    fn verify(&self, line: &str) -> Output {
        let output = self.command(line).output();
        output.expect("the binary of this build runs")
    }

    /// Whether all that the run has made for itself is gone.
    fn has_no_nodes(&self) -> bool {
        let entries = self.0.read_dir().expect("it is there").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .all(|name| !name.starts_with("henge-verify-"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[test]
fn a_cluster_whose_nodes_are_killed_tells_no_lie() {
    let folder = Folder::new();
    let output = folder
        .verify("--kill --duration 6s --seed 11 --rate 400 --report r.html --history h --json");
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(verdict["good"], true, "{told}");
    assert_eq!(verdict["seed"], 11);
    assert!(verdict["events"].as_u64() > Some(500), "{told}");
    let faults = verdict["faults"].as_array().expect("faults");
    assert!(!faults.is_empty(), "{told}");
    for fault in faults {
        assert_eq!(fault["kind"], "kill");
        assert!(
            fault["whole_us"].as_u64() > fault["began_us"].as_u64(),
            "{told}"
        );
    }
    let page = folder.read("r.html");
    assert_eq!(page.matches("<svg ").count(), 3);
    assert!(
        page.contains("<rect class=\"kill\""),
        "the fault is in the plots"
    );
    for text in [
        "No lie in ",
        "Seed 11, ",
        "Latency by percentile",
        "(logarithmic)",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for wrong in ["NaN", "inf\"", "src=", "href=", "<script"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    assert!(folder.has_no_nodes(), "the nodes' files go with the run");
    // The history is judged again, to the same end.
    let again = folder.verify("--check h --json");
    let verdict_again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again.status.code(), Some(0), "{verdict_again}");
    assert_eq!(verdict_again["events"], verdict["events"]);
}

/// Where nodes can be cut off from each other, which takes root and iproute2.
#[test]
fn a_cluster_that_is_cut_apart_tells_no_lie() {
    let folder = Folder::new();
    let output = folder.verify("--partition --duration 5s --seed 2 --rate 400");
    let told = told(&output);
    if told.contains("--partition needs network namespaces") {
        skipped(
            "iproute2",
            &format!("no nodes are cut off from each other: {told}"),
        );
        assert_eq!(output.status.code(), Some(3));
    } else {
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("partition node"), "{told}");
        assert!(told.contains("No lie in "), "{told}");
    }
    assert!(folder.has_no_nodes(), "the nodes' files go with the run");
}

#[test]
fn a_node_that_ends_by_itself_is_told() {
    let folder = Folder::new();
    let run = folder
        .command("--duration 8s --rate 200 --history h")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary of this build runs");
    // A round is written when it is judged, which is while the load goes on.
    let deadline = Instant::now() + DEADLINE;
    while folder.read("h").is_empty() {
        assert!(Instant::now() < deadline, "no round is written");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let id = run.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("its children are known");
    let child = children.split(' ').next().and_then(|id| id.parse().ok());
    let child = child.and_then(Pid::from_raw).expect("it has nodes");
    kill_process(child, Signal::KILL).expect("it runs");
    let output = run.wait_with_output().expect("it ends");
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(" ended by itself at "), "{text}");
    assert!(text.contains("No lie in "), "{text}");
    assert!(text.contains("data are left in "), "{text}");
    assert!(!folder.has_no_nodes(), "who is told of it can look at it");
}

#[test]
fn a_node_that_runs_already_is_checked() {
    let folder = Folder::new();
    let node = node(&[]);
    let url = format!("http://{}", node.local_addr());
    let output = folder.verify(&format!("--url {url} --duration 2s --rate 300 --level all"));
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("No lie in "), "{told}");
    assert!(told.contains("No acknowledged ALL write is lost"), "{told}");
}

#[test]
fn a_planted_lie_is_found_and_told() {
    let folder = Folder::new();
    let line = |client, invoked, rest: &str| {
        let completed = invoked + 1;
        format!(
            "{{\"client\":{client},\"key\":\"k\",\"invoked\":{invoked},\"completed\":{completed},{rest}}}\n"
        )
    };
    let history = [
        line(1, 10, r#""do":"write","value":5,"outcome":"done""#),
        line(2, 20, r#""do":"write","value":6,"outcome":"done""#),
        line(
            3,
            30,
            r#""do":"read","outcome":"unchanged","found":"something","found_value":5"#,
        ),
    ];
    fs::write(folder.0.join("h"), history.concat()).expect("written");
    let output = folder.verify("--check h");
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "key \"k\"",
        "client 2: write 6",
        "client 3: read -> unchanged, 5 was there",
        "A LIE",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    fs::write(folder.0.join("h"), history[..2].concat()).expect("written");
    assert_eq!(folder.verify("--check h").status.code(), Some(0));
    fs::write(folder.0.join("h"), "nonsense\n").expect("written");
    let output = folder.verify("--check h");
    assert_eq!(output.status.code(), Some(3));
    assert!(told(&output).contains("h: line 1: "), "{}", told(&output));
}

#[test]
fn what_cannot_be_run_is_a_line() {
    let folder = Folder::new();
    for (line, code, part) in [
        (
            "--url http://127.0.0.1:1 --kill",
            2,
            "--kill is for nodes that henge verify starts itself",
        ),
        (
            "--url http://127.0.0.1:1 -d 1s",
            3,
            "no node of --url answers as one of Henge",
        ),
        (
            "--set cache.policy=none -d 1s",
            3,
            "cache.policy: found \"none\"",
        ),
        ("--check missing", 3, "missing cannot be read"),
        ("--level most", 2, "expected one, quorum or all"),
        ("--port 1", 2, "--port"),
    ] {
        let output = folder.verify(line);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        assert!(text.contains(part), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(folder.has_no_nodes(), "{line}");
    }
}
