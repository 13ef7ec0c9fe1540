//! The console in a real Chromium, driven by playwright-core: every view of a cluster of three under load, what a click does, and
//! the way in where there are API keys. Screenshots are left where `HENGE_SCREENSHOTS` says; those in `docs/images` are such.

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{env, fs, thread};

use crate::client::{Client, installed, node as start_node, skipped};
use crate::cluster::Ring;
use crate::real_clients::run_script;

const NOTHING_TRIED: &str = "the console was not opened";

/// A command that runs a script with playwright-core and Chromium; none where one of them is not there.
fn node() -> Option<Command> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    let Some(chromium) = files.find(|file| file.is_file()) else {
        skipped("chromium", NOTHING_TRIED);
        return None;
    };
    let tool = installed("playwright-core").map(|folder| folder.join("node_modules"));
    let paths = [env::var_os("NODE_PATH"), tool.map(PathBuf::into_os_string)];
    for path in paths.into_iter().flatten() {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &path).env("CHROMIUM", &chromium);
        let mut probe = Command::new("node");
        probe
            .env("NODE_PATH", &path)
            .args(["-e", "require('playwright-core')"]);
        if probe.output().is_ok_and(|output| output.status.success()) {
            return Some(command);
        }
    }
    skipped("playwright-core", NOTHING_TRIED);
    None
}

/// Gets and sets some keys of all nodes until it is told to stop, each key half as often as the one before.
fn load(ring: &Ring, stop: &mpsc::Receiver<()>) {
    // The machine is for the browser, which draws what comes of this.
    const BETWEEN: Duration = Duration::from_millis(3);
    let mut clients: Vec<Client> = (1..=3).map(|n| ring.http(n)).collect();
    let mut number = 0u32;
    while stop.recv_timeout(BETWEEN) == Err(RecvTimeoutError::Timeout) {
        number += 1;
        let key = number.trailing_zeros();
        let client = &mut clients[number as usize % 3];
        if number.is_multiple_of(5) {
            client.request("PUT", &format!("/cache/load:{key}"), &[], b"value");
        } else {
            client.get(&format!("/cache/load:{key}"));
        }
    }
}

#[test]
fn every_view_of_a_cluster_under_load() {
    let Some(mut command) = node() else {
        return;
    };
    let ring = Ring::new().set("cluster.replication_factor=3").formed(3);
    ring.until("it takes writes", || {
        ring.http(1)
            .request("PUT", "/cache/first", &[], b"value")
            .status
            == 204
    });
    let folder = env::var_os("HENGE_SCREENSHOTS").map_or_else(
        || env::temp_dir().join(format!("henge-console-{}", std::process::id())),
        PathBuf::from,
    );
    fs::create_dir_all(&folder).expect("there is room for a folder");
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let ring = &ring;
        scope.spawn(move || load(ring, &stopped));
        let url = |n| format!("http://{}", ring.address(n));
        command.env("OTHER", url(2));
        let words = ["cluster".to_owned(), url(1), folder.display().to_string()];
        run_script(command, "console/drive.js", &words);
        let mut command = node().expect("it was there a moment ago");
        command.env("OTHER", url(2));
        let words = ["wide".to_owned(), url(1), folder.display().to_string()];
        run_script(command, "console/drive.js", &words);
        drop(stop);
    });
    for view in ["overview", "ring", "within", "misses", "dark", "narrow"] {
        let shot = fs::metadata(folder.join(format!("console-{view}.png")));
        assert!(shot.is_ok_and(|shot| shot.len() > 10_000), "{view}");
    }
    if env::var_os("HENGE_SCREENSHOTS").is_none() {
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}

#[test]
fn who_has_an_api_key_logs_in() {
    let Some(command) = node() else {
        return;
    };
    let node = start_node(&[]);
    let mut client = Client::connect(node.local_addr());
    let mut made = |name: &str, permission: &str, admin: Option<&str>| {
        let body = format!(r#"{{"name":"{name}","permissions":["{permission}"]}}"#);
        let headers = [
            ("content-type", "application/json"),
            ("x-api-key", admin.unwrap_or("")),
        ];
        let count = if admin.is_some() { 2 } else { 1 };
        let answer = client.request("POST", "/admin/keys", &headers[..count], body.as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["key"].as_str().expect("a key").to_owned()
    };
    let admin = made("boss", "admin", None);
    let reader = made("reader", "read", Some(&admin));
    let url = format!("http://{}", node.local_addr());
    run_script(
        command,
        "console/drive.js",
        &["keys".to_owned(), url, reader],
    );
}

#[test]
fn a_browser_is_told_what_the_console_may_do() {
    let node = start_node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (target, media_type) in [
        ("/console/", "text/html; charset=utf-8"),
        ("/console/index.html", "text/html; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/views/ring.js", "text/javascript; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, 200, "{target}");
        for (name, expected) in [
            ("content-type", media_type),
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(expected), "{target}: {name}");
        }
        let tag = answer.header("etag").expect("a tag").to_owned();
        let again = client.request("GET", target, &[("if-none-match", &tag)], b"");
        assert_eq!(again.status, 304, "{target}");
    }
    for target in ["/console/none.js", "/console/../main.js", "/console/views"] {
        assert_eq!(client.get(target).status, 404, "{target}");
    }
    let moved = client.get("/console");
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("/console/"))
    );
}
