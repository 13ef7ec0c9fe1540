//! Partitions that move between real processes, while clients are served: a node joins, is drained, weighs otherwise, dies in the midst
//! of it, or never comes back. No key is lost, and where nobody dies no request fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::Ring;
use super::faults::wait_for_leader;
use crate::durability::Resp;
use crate::resp_reply::Reply;

/// Keys of each client.
const KEYS: usize = 300;
/// All partitions of a cluster.
const PARTITIONS: u64 = 1024;

fn ring(count: usize) -> Ring {
    Ring::new()
        .set("cluster.replication_factor=3")
        .formed(count)
}

/// Clients that write and read keys of their own, each by one node, for as long as this is there.
struct Load {
    ends: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Client>>,
}

/// One of them.
struct Client {
    number: usize,
    /// What each key may hold, nothing among it: more than one where it is not known what became of a write.
    known: BTreeMap<usize, Vec<Option<String>>>,
    errors: Vec<String>,
    requests: usize,
}

impl Load {
    fn begin(ring: &Ring, nodes: &[usize]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let clients = nodes.iter().map(|&number| {
            let (address, ends) = (ring.address(number), Arc::clone(&ends));
            let client = Client {
                number,
                known: BTreeMap::new(),
                errors: Vec::new(),
                requests: 0,
            };
            std::thread::spawn(move || client.run(address, &ends))
        });
        Self {
            clients: clients.collect(),
            ends,
        }
    }

    /// It ends. What the clients know is checked by each of these nodes.
    fn end(self, ring: &Ring, nodes: &[usize]) -> Vec<String> {
        self.ends.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let clients: Vec<Client> = clients
            .map(|client| client.join().expect("no client lies"))
            .collect();
        for &node in nodes {
            let mut resp = ring.resp(node);
            for client in &clients {
                for (key, values) in &client.known {
                    let key = client.key(*key);
                    let found = found(resp.ask(&format!("GET {key}")));
                    let is_known = found.as_ref().is_ok_and(|found| values.contains(found));
                    let (found, values) = (begin(&found), begin(values));
                    assert!(is_known, "{key} by node {node}: {found}, not of {values}");
                }
            }
        }
        let requests: usize = clients.iter().map(|client| client.requests).sum();
        println!("{requests} requests");
        clients
            .into_iter()
            .flat_map(|client| client.errors)
            .collect()
    }

    /// The same, where nobody was told of an error.
    fn end_well(self, ring: &Ring, nodes: &[usize]) {
        let errors = self.end(ring, nodes);
        assert_eq!(errors, Vec::<String>::new());
    }
}

impl Client {
    fn key(&self, key: usize) -> String {
        format!("key:{}:{key}", self.number)
    }

    fn run(mut self, address: SocketAddr, ends: &AtomicBool) -> Self {
        let mut resp = Resp::connect(address);
        // Large enough that a copy takes its time.
        let filling = "x".repeat(4096);
        for step in 0.. {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            let key = step % KEYS;
            let value = format!("{step}-{filling}");
            let name = self.key(key);
            match resp.ask(&format!("SET {name} {value}")) {
                Reply::Error(error) => {
                    if !error.contains("nothing was done") {
                        assert!(error.starts_with("UNKNOWN"), "{error}");
                        let known = self.known.entry(key).or_insert_with(|| vec![None]);
                        known.push(Some(value));
                    }
                    self.errors.push(format!("SET by {}: {error}", self.number));
                }
                reply => {
                    assert_eq!(reply, Reply::Text("OK".to_owned()));
                    self.known.insert(key, vec![Some(value)]);
                }
            }
            let key = step * 7 % KEYS;
            let name = self.key(key);
            if let Some(known) = self.known.get_mut(&key) {
                match found(resp.ask(&format!("GET {name}"))) {
                    Err(error) => self.errors.push(format!("GET by {}: {error}", self.number)),
                    Ok(found) => {
                        let is_known = known.contains(&found);
                        let (found_text, values) = (begin(&found), begin(&known));
                        assert!(is_known, "{name} at {step}: {found_text}, not of {values}");
                        *known = vec![found];
                    }
                }
            }
            self.requests += 2;
        }
        self
    }
}

/// What a key holds, or an error.
fn found(reply: Reply) -> Result<Option<String>, String> {
    match reply {
        Reply::Null => Ok(None),
        Reply::Text(text) => Ok(Some(text)),
        Reply::Error(error) => Err(error),
        reply => panic!("{reply:?} is none to GET"),
    }
}

/// Without what fills values.
fn begin(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").replace('x', "")
}

/// How far moves are, as a node says.
fn moves(ring: &Ring, n: usize) -> (bool, u64, u64) {
    let status = ring.status(n);
    let moves = &status["moves"];
    (
        moves["are_planned"] == true,
        moves["partitions_done"].as_u64().unwrap_or(0),
        moves["partitions_total"].as_u64().unwrap_or(0),
    )
}

/// How many partitions a node is a replica of.
fn holds(ring: &Ring, n: usize, of: usize) -> u64 {
    let member = ring.member(n, of);
    member["holds_partitions"].as_u64().unwrap_or(0)
}

/// Waits until something moves, and some of it has.
fn wait_for_moves(ring: &Ring, n: usize) {
    ring.until("some partitions have moved, and others have not", || {
        let (_, done, total) = moves(ring, n);
        done > 0 && done < total
    });
}

/// Waits until all partitions are where they should be.
fn wait_until_moved(ring: &Ring, n: usize) {
    let mut last = (0, 0);
    // As long as it goes on it may take its time.
    loop {
        let mut now = last;
        ring.until("partitions move", || {
            let (are_planned, done, total) = moves(ring, n);
            now = (done, total);
            are_planned && (total == 0 || now != last)
        });
        if now.1 == 0 {
            return;
        }
        last = now;
    }
}

pub(super) fn all_are_up(ring: &Ring, n: usize, count: usize) {
    ring.until("all are up", || {
        let status = ring.status(n);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        members.len() == count && members.iter().all(|member| member["state"] == "up")
    });
}

/// Waits until the epoch goes on by itself no more: each node has all that it is a replica of, nothing is on its way, and all have come as
/// far.
pub(crate) fn all_is_settled(ring: &Ring, count: usize) {
    let of = |n| {
        let status = ring.status(n);
        let (moves, copies) = (&status["moves"], &status["copies"]);
        let is_whole = copies["replicas"] == copies["replicas_aligned"];
        let is_done = moves["partitions_done"] == moves["partitions_total"]
            && moves["partitions_moving"] == 0
            && moves["partitions_to_hand_over"] == 0;
        (is_whole && is_done).then(|| status["epoch"].clone())
    };
    ring.until("all is settled", || {
        let epochs: Vec<_> = (1..=count).map(of).collect();
        epochs
            .iter()
            .all(|epoch| epoch.is_some() && *epoch == epochs[0])
    });
}

/// A command that does what it is asked for, and what it says.
fn done(ring: &Ring, n: usize, words: &[&str]) -> String {
    let output = ring.command(n, words);
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
    assert!(output.status.success(), "{words:?}: {text}");
    text
}

/// What a route says of a change: its status, and its code if it has one.
fn asked(ring: &Ring, n: usize, method: &str, path: &str, body: &str) -> (u16, String) {
    let answer = ring.http(n).request(method, path, &[], body.as_bytes());
    let code = answer.json()["code"].as_str().map(str::to_owned);
    (answer.status, code.unwrap_or_default())
}

#[test]
fn a_node_that_joins_takes_its_share_and_nobody_is_told_of_an_error() {
    let mut ring = ring(3);
    all_are_up(&ring, 1, 3);
    let load = Load::begin(&ring, &[1, 2, 3]);
    ring.start(4, &ring.others(4, 3));
    ring.wait_until_ready([4]);
    wait_for_moves(&ring, 1);
    wait_until_moved(&ring, 1);
    // Three quarters of all, as each of four.
    for of in 1..=4 {
        let held = holds(&ring, 1, of);
        assert!((700..=845).contains(&held), "node{of} holds {held}");
    }
    all_are_up(&ring, 1, 4);
    load.end_well(&ring, &[1, 2, 3, 4]);
    let moved = ring.figure(1, "henge_moved_partitions_total");
    assert!(moved >= holds(&ring, 1, 4), "{moved}");
    assert_eq!(ring.figure(1, "henge_partitions_to_move"), 0);
    assert!(ring.figure(1, "henge_copies_sent_bytes_total") > 0);
}

/// Also by those that ask the very node.
#[test]
fn a_node_is_drained_and_nobody_is_told_of_an_error() {
    let mut ring = ring(4);
    all_are_up(&ring, 1, 4);
    let load = Load::begin(&ring, &[1, 2, 3, 4]);
    let leader = wait_for_leader(&ring, 1);
    let said = done(&ring, leader % 4 + 1, &["drain", &format!("node{leader}")]);
    assert!(said.contains("its process can be ended"), "{said}");
    let other = leader % 4 + 1;
    assert_eq!(holds(&ring, other, leader), 0);
    ring.until("it knows of that", || !ring.is_ready(leader));
    load.end_well(&ring, &[1, 2, 3, 4]);
    // It is a member, and serves, until it ends.
    assert_eq!(ring.member(other, leader)["state"], "leaving");
    ring.stop(leader);
    ring.until("it is no member any more", || {
        ring.member(other, leader).is_null()
    });
    // Its next start joins again.
    ring.start(leader, &ring.others(leader, 4));
    ring.wait_until_ready([leader]);
    wait_until_moved(&ring, other);
    ring.until("it has its share", || holds(&ring, other, leader) > 700);
}

/// The next control leader finds all that it needs in what is agreed on.
#[test]
fn the_control_leader_dies_while_data_move() {
    let mut ring = ring(3);
    all_are_up(&ring, 1, 3);
    let leader = wait_for_leader(&ring, 1);
    let rest: Vec<usize> = (1..=3).filter(|n| *n != leader).collect();
    let load = Load::begin(&ring, &rest);
    ring.start(4, &ring.others(4, 3));
    wait_for_moves(&ring, rest[0]);
    ring.kill(leader);
    wait_for_leader(&ring, rest[0]);
    ring.start(leader, &ring.others(leader, 4));
    ring.wait_until_ready([leader]);
    wait_until_moved(&ring, rest[0]);
    ring.until("the fourth has its share", || {
        holds(&ring, rest[0], 4) > 700
    });
    all_are_up(&ring, rest[0], 4);
    load.end(&ring, &[1, 2, 3, 4]);
}

#[test]
fn a_source_dies_while_data_move() {
    let mut ring = ring(3);
    all_are_up(&ring, 1, 3);
    let leader = wait_for_leader(&ring, 1);
    let source = leader % 3 + 1;
    let rest: Vec<usize> = (1..=3).filter(|n| *n != source).collect();
    let load = Load::begin(&ring, &rest);
    ring.start(4, &ring.others(4, 3));
    wait_for_moves(&ring, leader);
    ring.kill(source);
    ring.until("it is down", || {
        ring.member(leader, source)["state"] == "down"
    });
    ring.start(source, &ring.others(source, 4));
    ring.wait_until_ready([source]);
    wait_until_moved(&ring, leader);
    ring.until("the fourth has its share", || holds(&ring, leader, 4) > 700);
    all_are_up(&ring, leader, 4);
    load.end(&ring, &[1, 2, 3, 4]);
}

#[test]
fn a_target_dies_while_data_move() {
    let mut ring = ring(3);
    all_are_up(&ring, 1, 3);
    let load = Load::begin(&ring, &[1, 2, 3]);
    ring.start(4, &ring.others(4, 3));
    wait_for_moves(&ring, 1);
    ring.kill(4);
    ring.until("it is down", || ring.member(1, 4)["state"] == "down");
    ring.start(4, &ring.others(4, 3));
    ring.wait_until_ready([4]);
    wait_until_moved(&ring, 1);
    ring.until("the fourth has its share", || holds(&ring, 1, 4) > 700);
    all_are_up(&ring, 1, 4);
    load.end(&ring, &[1, 2, 3, 4]);
}

/// For as long as it is away others hold what it did, and nobody has to ask for that.
#[test]
fn who_is_down_for_too_long_is_replaced() {
    let mut ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("cluster.down_timeout=1s")
        // With that the copies of some partitions have to wait for their turn.
        .set("cluster.move_rate=4MiB")
        .formed(4);
    all_are_up(&ring, 1, 4);
    let load = Load::begin(&ring, &[1, 2, 3]);
    ring.kill(4);
    for of in 1..=3 {
        ring.until("each has all", || holds(&ring, 1, of) == PARTITIONS);
    }
    assert_eq!(ring.member(1, 4)["state"], "down");
    assert_eq!(holds(&ring, 1, 4), 0);
    ring.start(4, &ring.others(4, 4));
    ring.wait_until_ready([4]);
    wait_until_moved(&ring, 1);
    ring.until("it has its share", || holds(&ring, 1, 4) > 700);
    all_are_up(&ring, 1, 4);
    load.end(&ring, &[1, 2, 3, 4]);
    let sent: u64 = (1..=3)
        .map(|n| ring.status(n)["copies"]["sent_bytes"].as_u64().unwrap_or(0))
        .sum();
    assert!(sent > 0);
}

#[test]
fn who_never_comes_back_is_removed_by_force() {
    let mut ring = ring(4);
    all_are_up(&ring, 1, 4);
    let load = Load::begin(&ring, &[1, 2, 3]);
    ring.until("all keys are written", || {
        let Reply::Integer(count) = ring.ask(1, "DBSIZE") else {
            return false;
        };
        usize::try_from(count).is_ok_and(|count| count == 3 * KEYS)
    });
    let remove = |ring: &Ring, path: &str| asked(ring, 1, "POST", path, "");
    let reachable = (409, "node_reachable".to_owned());
    assert_eq!(remove(&ring, "/cluster/remove/node4?force=true"), reachable);
    ring.kill(4);
    ring.until("it is down", || ring.member(1, 4)["state"] == "down");
    let holds_data = (409, "node_holds_data".to_owned());
    assert_eq!(remove(&ring, "/cluster/remove/node4"), holds_data);
    let said = done(&ring, 2, &["remove", "node4", "--force"]);
    assert_eq!(said, "node4 is no member any more\n");
    for of in 1..=3 {
        ring.until("each has all", || holds(&ring, 1, of) == PARTITIONS);
    }
    load.end(&ring, &[1, 2, 3]);
    // Who comes back after all is a new one.
    ring.start(4, &ring.others(4, 3));
    ring.wait_until_ready([4]);
    wait_until_moved(&ring, 1);
    ring.until("it has its share", || holds(&ring, 1, 4) > 700);
}

#[test]
fn shares_follow_weights_and_who_was_to_leave_may_stay() {
    let mut ring = ring(4);
    all_are_up(&ring, 1, 4);
    assert_eq!(ring.member(1, 4)["weight"], 100);
    let said = done(&ring, 2, &["set-weight", "node4", "50"]);
    assert_eq!(said, "node4 weighs 50\n");
    assert_eq!(ring.member(2, 4)["weight"], 50);
    let half = holds(&ring, 2, 4);
    assert!((400..=500).contains(&half), "{half}");
    // A start of it keeps that.
    ring.stop(4);
    ring.start(4, &ring.others(4, 4));
    ring.wait_until_ready([4]);
    all_are_up(&ring, 1, 4);
    assert_eq!(ring.member(1, 4)["weight"], 50);
    assert_eq!(
        done(&ring, 3, &["rebalance"]),
        "all partitions are where they should be\n"
    );
    assert_eq!(holds(&ring, 3, 4), half);
    let said = done(&ring, 1, &["drain", "node4", "--no-wait"]);
    assert_eq!(said, "node4 is being drained\n");
    wait_for_moves(&ring, 1);
    assert_eq!(done(&ring, 1, &["add", "node4"]), "node4 has its share\n");
    assert_eq!(ring.member(1, 4)["state"], "up");
    assert!((400..=500).contains(&holds(&ring, 1, 4)));
    what_is_wrong_is_said(&ring);
    done(&ring, 1, &["drain", "node4"]);
    assert_eq!(
        done(&ring, 1, &["remove", "node4"]),
        "node4 is no member any more\n"
    );
    ring.until("it says so itself", || {
        let status = ring.status(4);
        let why = status["why"].as_str().unwrap_or_default();
        status["standing"] == "refused" && why.contains("was removed from the cluster")
    });
}

fn what_is_wrong_is_said(ring: &Ring) {
    for (method, path, body, status, code) in [
        ("POST", "/cluster/drain/node9", "", 404, "node_not_found"),
        ("POST", "/cluster/add/node9", "", 404, "node_not_found"),
        ("POST", "/cluster/remove/node9", "", 404, "node_not_found"),
        ("PUT", "/cluster/weight/node9", "7", 404, "node_not_found"),
        ("PUT", "/cluster/weight/node4", "0", 400, "invalid_weight"),
        (
            "PUT",
            "/cluster/weight/node4",
            "1001",
            400,
            "invalid_weight",
        ),
        (
            "PUT",
            "/cluster/weight/node4",
            "much",
            400,
            "invalid_weight",
        ),
        ("PUT", "/cluster/weight/node4", "", 400, "invalid_weight"),
        ("POST", "/cluster/remove/node4", "", 409, "node_holds_data"),
        (
            "POST",
            "/cluster/remove/node4?force=maybe",
            "",
            400,
            "invalid_query",
        ),
        (
            "POST",
            "/cluster/remove/node4?forced=true",
            "",
            400,
            "invalid_query",
        ),
        ("GET", "/cluster/drain/node4", "", 405, "method_not_allowed"),
    ] {
        let answer = asked(ring, 1, method, path, body);
        assert_eq!(
            answer,
            (status, code.to_owned()),
            "{method} {path} {body:?}"
        );
    }
    let wrong = ring.command(1, &["drain", "node9"]);
    assert_eq!(wrong.status.code(), Some(3));
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(text.contains("no member is called \"node9\""), "{text}");
    let wrong = ring.command(1, &["set-weight", "node4", "0"]);
    assert_eq!(wrong.status.code(), Some(2));
}

/// Nobody else has what moves, and it moves all the same.
#[test]
fn partitions_of_one_replica_move_too() {
    let ring = Ring::new().formed(2);
    (1..=2).for_each(|n| all_are_up(&ring, n, 2));
    let load = Load::begin(&ring, &[1]);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = [1, 2].map(|n| ring.http(n));
        let batches = clients.map(|client| scope.spawn(|| ask_batches(client, &ends)));
        done(&ring, 1, &["drain", "node2"]);
        assert_eq!(holds(&ring, 1, 2), 0);
        done(&ring, 1, &["add", "node2"]);
        assert!(holds(&ring, 1, 2) > 0);
        done(&ring, 1, &["drain", "node1"]);
        ends.store(true, Ordering::Relaxed);
        for batches in batches {
            assert!(batches.join().expect("each batch is answered") > 0);
        }
    });
    load.end_well(&ring, &[1, 2]);
}

/// Sets keys of all nodes and reads them, in batches: some have gone to another node by the time at which it is their turn. Gives how
/// many batches were answered.
fn ask_batches(mut client: crate::client::Client, ends: &AtomicBool) -> usize {
    let keys: Vec<String> = (0..200).map(|n| format!("batch:{n}")).collect();
    let mut count = 0;
    while !ends.load(Ordering::Relaxed) {
        let items: Vec<Value> = keys
            .iter()
            .map(|key| json!({"key": key, "value": "v".repeat(2000)}))
            .collect();
        for (path, body) in [
            ("/mset", json!({ "items": items })),
            ("/mget", json!({ "keys": keys })),
        ] {
            let answer = client.post(path, &body.to_string());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let results = answer.json()["results"].clone();
            let results = results.as_array().expect("it has results");
            assert_eq!(results.len(), keys.len());
            for result in results {
                assert!(result["error"].is_null(), "{path}: {result}");
            }
            count += 1;
        }
    }
    count
}

#[test]
fn the_last_node_cannot_be_drained() {
    let ring = Ring::new().formed(1);
    ring.until("its cluster is formed", || {
        ring.member(1, 1)["state"] == "up"
    });
    ring.until("it is in that", || ring.status(1)["epoch"] != 0);
    let answer = asked(&ring, 1, "POST", "/cluster/drain/node1", "");
    assert_eq!(answer, (409, "last_node".to_owned()));
}

/// A node that comes back leads what it led before once whoever leads it meanwhile has answered all that it was asked: nobody has
/// failed, so nobody is told that something is unknown.
#[test]
fn nobody_is_cut_off_by_who_comes_back() {
    let mut ring = ring(3);
    (1..=3).for_each(|n| all_are_up(&ring, n, 3));
    let handed_over = |ring: &Ring| {
        ring.until("nobody is to hand anything over", || {
            let left = |n| ring.status(n)["moves"]["partitions_to_hand_over"].as_u64();
            (1..=3).all(|n| left(n) == Some(0))
        });
    };
    // Who was up first leads more until then.
    handed_over(&ring);
    let leads = |ring: &Ring, key: &str| {
        let path = format!("/cluster/ring?key={key}");
        ring.http(2).get(&path).json()["holder"]["name"] == "node1"
    };
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let led: Vec<&String> = keys.iter().filter(|key| leads(&ring, key)).collect();
    assert!(!led.is_empty());
    ring.kill(1);
    ring.until("others lead its partitions", || {
        led.iter().all(|key| {
            !leads(&ring, key) && !matches!(ring.ask(2, &format!("SET {key} v")), Reply::Error(_))
        })
    });
    let ends = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<Vec<Reply>>> = (0..8)
        .map(|client| {
            let (address, ends) = (ring.address(2 + client % 2), Arc::clone(&ends));
            std::thread::spawn(move || pipelines(address, client, &ends))
        })
        .collect();
    ring.start(1, &ring.others(1, 3));
    ring.until("it leads them again", || {
        led.iter().all(|key| leads(&ring, key))
    });
    for key in &led {
        ring.until("it has opened them", || {
            ring.ask(1, &format!("GET {key}")) == Reply::Text("v".to_owned())
        });
    }
    handed_over(&ring);
    ends.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.join().expect("it is answered"), []);
    }
}

/// Writes keys of its own, many at once, and gives the replies that are none of a write that was done.
fn pipelines(address: SocketAddr, client: usize, ends: &AtomicBool) -> Vec<Reply> {
    let mut resp = Resp::connect(address);
    let mut others = Vec::new();
    let keys = (0..64).map(|n| format!("SET c{client}:{n} v\r\n"));
    let keys = keys.collect::<String>();
    while !ends.load(Ordering::Relaxed) {
        resp.send(&keys).expect("it takes them");
        let replies = (0..64).map(|_| resp.reply().expect("each is answered"));
        others.extend(replies.filter(|reply| *reply != Reply::Text("OK".to_owned())));
    }
    others
}
