//! `henge cluster recover`, as a shell runs it: two of three are lost for good, and the third goes on without them.

use std::fs;
use std::process::{Command, Output, Stdio};

use super::Ring;
use crate::resp_reply::Reply;

/// Runs it on the directory of a node.
fn recover(ring: &Ring, n: usize, force: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command
        .args(["cluster", "recover", "--data-dir"])
        .arg(ring.directory(n))
        .args(force.then_some("--force"))
        .stdin(Stdio::null());
    command.output().expect("the process starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn cluster(ring: &Ring, n: usize) -> String {
    let status = ring.status(n);
    status["cluster"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn one_of_three_goes_on_by_itself() {
    let mut ring = Ring::new().formed(3);
    let before = cluster(&ring, 3);
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let ok = Reply::Text("OK".to_owned());
    for key in &keys {
        assert_eq!(ring.ask(1, &format!("SET {key} v{key}")), ok);
    }
    // Who knows the map is told of the keys that the third does not have.
    let mut aware = ring.resp(3);
    assert!(matches!(aware.ask("CLUSTER NODES"), Reply::Text(_)));
    let own: Vec<bool> = keys
        .iter()
        .map(|key| !matches!(aware.ask(&format!("GET {key}")), Reply::Error(_)))
        .collect();
    assert!(own.contains(&true) && own.contains(&false));

    let refused = recover(&ring, 3, true);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        text(&refused.stderr).contains("is in use by another process"),
        "{}",
        text(&refused.stderr)
    );
    ring.kill(1);
    ring.kill(2);
    ring.stop(3);
    let asked = recover(&ring, 3, false);
    assert_eq!(asked.status.code(), Some(1), "{}", text(&asked.stderr));
    let said = text(&asked.stdout);
    for expected in [
        format!("partitions of the cluster {before}. A cluster of it alone is without\n"),
        format!(
            "  node1 at {}\n  node2 at {}\n",
            ring.address(1),
            ring.address(2)
        ),
        "\nNothing was changed.\n".to_owned(),
    ] {
        assert!(said.contains(&expected), "{said}");
    }
    let done = recover(&ring, 3, true);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    ring.start(3, "");
    ring.wait_until_ready([3]);
    let after = cluster(&ring, 3);
    assert!(text(&done.stdout).contains(&format!("node3 is the cluster {after} now")));
    assert_ne!(before, after);
    assert_eq!(ring.members(3), [(ring.address(3), true)]);
    for (key, own) in keys.iter().zip(&own) {
        let expected = match own {
            true => Reply::Text(format!("v{key}")),
            false => Reply::Null,
        };
        assert_eq!(ring.ask(3, &format!("GET {key}")), expected, "{key}");
        assert_eq!(ring.ask(3, &format!("SET {key} new")), ok);
    }

    // One of before is in another cluster now.
    ring.start(1, &ring.others(1, 3));
    // Which of the two refuses the other first is chance.
    ring.until("it says that there is another cluster", || {
        let status = ring.status(1);
        status["waits"].to_string().contains(&after) || status["why"].to_string().contains(&after)
    });
    assert!(!ring.is_ready(1));
    ring.kill(1);
    fs::remove_dir_all(ring.directory(1)).expect("it was there");
    ring.start(1, &format!("http://{}", ring.address(3)));
    ring.wait_until_ready([1]);
    assert_eq!(cluster(&ring, 1), after);
    for n in [1, 3] {
        ring.until("both know both", || ring.members(n).len() == 2);
        for key in &keys {
            assert_eq!(
                ring.ask(n, &format!("GET {key}")),
                Reply::Text("new".to_owned())
            );
        }
    }
}

#[test]
fn who_was_in_no_cluster_has_none_to_recover() {
    let ring = Ring::new();
    let missing = recover(&ring, 1, true);
    assert_eq!(missing.status.code(), Some(3));
    let directory = ring.directory(1);
    fs::create_dir_all(&directory).expect("a directory");
    let empty = recover(&ring, 1, true);
    assert_eq!(empty.status.code(), Some(3));
    let expected = "the node of this directory was in no cluster\n";
    assert!(
        text(&empty.stderr).ends_with(expected),
        "{}",
        text(&empty.stderr)
    );
}
