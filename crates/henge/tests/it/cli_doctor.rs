//! `henge doctor` as a shell runs it: with the configuration of a node, and against one that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::client::{data_directory, node};

fn doctor(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command.arg("doctor").args(line.split(' ')).env_clear();
    command.output().expect("the binary of this build runs")
}

/// The verdict and what was found of a check.
fn check(output: &Output, name: &str) -> (String, String) {
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let checks = page["checks"].as_array().expect("a list");
    let found = checks.iter().find(|check| check["name"] == name);
    let check = found.unwrap_or_else(|| panic!("no {name}: {page}"));
    let text = |name: &str| check[name].as_str().expect("a text").to_owned();
    (text("verdict"), text("found"))
}

#[test]
fn the_surroundings_of_a_configuration() {
    let folder = data_directory();
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let keys = folder.join("keys.toml");
    fs::write(&keys, "").expect("a file");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let data = folder.join("data");
    let line = format!(
        "--json --port 127.0.0.1:0 --max-size 64MiB --data-dir {} --set security.key_file={}",
        data.display(),
        keys.display()
    );
    let output = doctor(&line);
    assert_eq!(
        output.status.code(),
        Some(3),
        "the file of keys is open to others"
    );
    let verdict = |name: &str| check(&output, name).0;
    assert_eq!(verdict("security.key_file"), "bad");
    assert_eq!(verdict("persistence.dir"), "ok");
    assert_eq!(verdict("server.listen"), "ok");
    let (_, found) = check(&output, "disk speed");
    assert!(found.contains("fdatasync: median "), "{found}");
    assert!(!data.exists(), "nothing was made");
    let left: Vec<_> = fs::read_dir(&folder).expect("it is there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    fs::remove_dir_all(&folder).expect("it is ours");

    let output = doctor("--max-size 3");
    assert_eq!(output.status.code(), Some(2), "the configuration is wrong");
    let output = doctor("--url redis://h:1");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_node_that_runs_is_asked() {
    let node = node(&[]);
    let port = node.local_addr().port();
    let folder = data_directory();
    let line = format!(
        "--json --port {} --data-dir {} --url http://127.0.0.1:{port}",
        node.local_addr(),
        folder.display()
    );
    let output = doctor(&line);
    let (verdict, found) = check(&output, "versions");
    assert_eq!((&*verdict, &*found), ("ok", env!("CARGO_PKG_VERSION")));
    let (verdict, found) = check(&output, "clocks");
    assert_eq!(verdict, "ok", "{found}");
    // This process has the port, and is not called henge.
    let (verdict, found) = check(&output, "server.listen");
    assert_eq!(verdict, "bad");
    assert!(
        found.ends_with(&format!("(process {})", std::process::id())),
        "{found}"
    );
}
