//! What each failure does: a node that is killed, the control leader that is killed, one that pauses, one that is silent.

use std::time::{Duration, Instant};

use super::Ring;
use super::moves::all_are_up;
use crate::resp_reply::Reply;

/// The node that leads, by its number, as another one says.
fn leader(ring: &Ring, n: usize) -> Option<usize> {
    let status = ring.status(n);
    let name = status["leader"].as_str()?;
    name.strip_prefix("node")?.parse().ok()
}

pub(super) fn wait_for_leader(ring: &Ring, n: usize) -> usize {
    let mut found = None;
    ring.until("somebody leads", || {
        found = leader(ring, n);
        found.is_some()
    });
    found.expect("it was just found")
}

#[test]
fn the_control_leader_is_killed_and_another_leads() {
    let mut ring = Ring::new().formed(3);
    let first = wait_for_leader(&ring, 1);
    let rest: Vec<usize> = (1..=3).filter(|n| *n != first).collect();
    ring.kill(first);
    let killed = Instant::now();
    ring.until("another leads", || {
        rest.iter()
            .any(|n| leader(&ring, *n).is_some_and(|now| now != first))
    });
    let took = killed.elapsed();
    // It is no bound; that is for `cargo xtask accept`.
    println!("another leader after {took:?}");
    // The topology works: the first one is down, and comes back.
    for n in &rest {
        ring.until("it is seen to be down", || {
            ring.members(*n).contains(&(ring.address(first), false))
        });
    }
    let lost: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let refused = lost
        .iter()
        .filter(|key| match ring.ask(rest[0], &format!("SET {key} v")) {
            Reply::Error(error) => {
                assert!(
                    error.starts_with(&format!("CLUSTERDOWN node{first} at ")),
                    "{error}"
                );
                true
            }
            reply => {
                assert_eq!(reply, Reply::Text("OK".to_owned()));
                false
            }
        });
    let refused = refused.count();
    assert!(refused > 0 && refused < lost.len(), "{refused}");
    ring.start(first, &ring.others(first, 3));
    ring.wait_until_ready([first]);
    for key in &lost {
        for n in 1..=3 {
            ring.until("all keys are served again", || {
                ring.ask(n, &format!("SET {key} v")) == Reply::Text("OK".to_owned())
            });
        }
    }
}

/// The epoch and the events of all nodes: what a pause must not change.
fn state(ring: &Ring) -> Vec<String> {
    (1..=3)
        .map(|n| {
            let status = ring.status(n);
            format!("{} {}", status["epoch"], status["leader"])
        })
        .collect()
}

#[test]
fn a_short_pause_changes_nothing() {
    use rustix::process::Signal;
    let ring = Ring::new().formed(3);
    for n in 1..=3 {
        wait_for_leader(&ring, n);
        all_are_up(&ring, n, 3);
    }
    let before = state(&ring);
    for n in [1, 2, 3, 1, 2, 3, 1, 2, 3, 1] {
        ring.signal(n, Signal::STOP);
        // This is the pause itself, and not a wait for something.
        std::thread::park_timeout(Duration::from_millis(300));
        ring.signal(n, Signal::CONT);
        assert_eq!(ring.ask(n, "PING"), Reply::Text("PONG".to_owned()));
    }
    assert_eq!(state(&ring), before);
    for n in 1..=3 {
        assert!(ring.members(n).iter().all(|(_, is_up)| *is_up));
        assert!(!ring.log(n).contains("kind=\"down\""), "{}", ring.log(n));
    }
}

#[test]
fn a_long_pause_is_down_and_then_up() {
    use rustix::process::Signal;
    let ring = Ring::new().formed(3);
    for paused in [2, wait_for_leader(&ring, 1)] {
        let others: Vec<usize> = (1..=3).filter(|n| *n != paused).collect();
        ring.signal(paused, Signal::STOP);
        for n in &others {
            ring.until("it is seen to be down", || {
                ring.members(*n).contains(&(ring.address(paused), false))
            });
        }
        ring.signal(paused, Signal::CONT);
        for n in 1..=3 {
            ring.until("it is seen to be up", || {
                ring.members(n).iter().all(|(_, is_up)| *is_up)
            });
        }
    }
}

/// Who is stopped is down by its own word, and not by a suspicion, also where it led; it is no less a member for that.
#[test]
fn who_is_stopped_says_so() {
    let mut ring = Ring::new().formed(3);
    let leader = wait_for_leader(&ring, 1);
    for stopped in [leader % 3 + 1, leader] {
        let others: Vec<usize> = (1..=3).filter(|n| *n != stopped).collect();
        let name = format!("node{stopped}");
        let events = |ring: &Ring, n: usize| {
            let page = ring.http(n).get("/cluster/events").json();
            let all = page["events"].as_array().cloned().unwrap_or_default();
            let its = all.iter().filter(|event| event["member"] == *name);
            its.map(|event| format!("{} {}", event["kind"], event["text"]))
                .collect::<Vec<String>>()
        };
        ring.stop(stopped);
        for n in &others {
            ring.until("it is seen to be down", || {
                ring.members(*n).contains(&(ring.address(stopped), false))
            });
            ring.until("its end is an event", || {
                let all = events(&ring, *n);
                all.iter()
                    .any(|event| event.starts_with("\"down\"") && event.contains("has left"))
            });
            let all = events(&ring, *n).join("\n");
            assert!(!all.contains("cannot be reached"), "{all}");
            assert!(!all.contains("no member any more"), "{all}");
        }
        ring.start(stopped, &ring.others(stopped, 3));
        ring.wait_until_ready([stopped]);
        for n in 1..=3 {
            ring.until("all are up", || {
                let members = ring.members(n);
                members.len() == 3 && members.iter().all(|(_, is_up)| *is_up)
            });
        }
    }
}

/// A leader that is stopped has a successor at once, and not when the last of its clients is done.
#[test]
fn a_leader_that_waits_for_a_client_leads_no_more() {
    // As long as the client likes.
    let long = ["server.shutdown_timeout_ms", "limits.body_timeout_ms"];
    let ring = long.iter().fold(Ring::new(), |ring, setting| {
        ring.set(&format!("{setting}=3600000"))
    });
    let mut ring = ring.formed(3);
    let old = wait_for_leader(&ring, 1);
    let others: Vec<usize> = (1..=3).filter(|n| *n != old).collect();
    let mut keys = (0..1_000).map(|n| format!("k{n}"));
    let key = keys.find(|key| {
        let place = ring.http(old).get(&format!("/cluster/ring?key={key}"));
        place.json()["holder"]["name"] == format!("node{old}")
    });
    let key = key.expect("it has a third of them");
    let mut busy = ring.http(old);
    let head = format!(
        "PUT /cache/{key} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    );
    busy.send(head.as_bytes()).expect("the head is sent");
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    busy.read_exact(&mut go_on);
    assert!(go_on.starts_with(b"HTTP/1.1 100 "), "it has begun with it");
    busy.send(b"1").expect("a half is sent");
    ring.signal(old, rustix::process::Signal::TERM);
    for n in &others {
        ring.until("another leads", || {
            leader(&ring, *n).is_some_and(|now| now != old)
        });
        ring.until("the old one is seen to be down", || {
            ring.members(*n).contains(&(ring.address(old), false))
        });
    }
    assert!(ring.is_running(old), "its client holds it");
    busy.send(b"2").expect("it still reads");
    assert!(busy.response(true).status < 300);
    ring.wait(old);
    // It ended because it was told to, and is not hurt by that.
    assert!(
        !ring.log(old).contains("takes no part"),
        "{}",
        ring.log(old)
    );
    ring.start(old, &ring.others(old, 3));
    ring.wait_until_ready([old]);
    let found = || ring.ask(others[0], &format!("GET {key}"));
    ring.until("what it took last is there", || {
        found() == Reply::Text("12".to_owned())
    });
}
