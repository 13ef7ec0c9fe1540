//! Where the model starts from, and what may happen from there. Each is a place at which the protocol could lie, so that the
//! steps that are left for it are few.

use super::scene::Scene;
use super::steps::{Asks, Control};
use super::steps::{CHANGE, FULL_COPY, GENERATION, PART_COPY, SECOND_TERM, SHOWS};
use super::world::Budget;
use henge_cluster::replica::Level;

/// See the head of the file.
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// All nodes; three of them hold the partition at first.
    pub nodes: u64,
    /// From a partition that is open and empty.
    pub start: fn(&mut Scene),
    /// Whether a message that has come may come again, and again.
    pub repeats: bool,
    /// Whether what is written is kept at once.
    pub keeps_at_once: bool,
    /// Whether reports come to the topology.
    pub reports: bool,
    /// What clients may ask.
    pub menu: &'static [(Asks, u8, Level)],
    /// What may be decided.
    pub controls: &'static [Control],
    /// How often.
    pub budget: Budget,
    /// Copies that a node may ask for in its life.
    pub copies: u64,
    /// Steps from the start to which CI explores all.
    pub depth: usize,
    /// What has to happen somewhere, or the model shows nothing.
    pub reaches: &'static [&'static str],
}

const NONE: Budget = Budget {
    requests: 0,
    evictions: 0,
    crashes: 0,
    amnesias: 0,
    downs: 0,
    commands: 0,
    ticks: 0,
};

const GET: (Asks, u8, Level) = (Asks::Get, b'a', Level::Quorum);
const SET: (Asks, u8, Level) = (Asks::Set, b'a', Level::Quorum);
const DELETE: (Asks, u8, Level) = (Asks::Delete, b'a', Level::Quorum);
const ADD: (Asks, u8, Level) = (Asks::Add, b'a', Level::Quorum);
const INCREMENT: (Asks, u8, Level) = (Asks::Increment, b'a', Level::Quorum);
const SET_OTHER: (Asks, u8, Level) = (Asks::Set, b'b', Level::Quorum);
const GET_ALL: (Asks, u8, Level) = (Asks::Get, b'a', Level::All);
const SET_ALL: (Asks, u8, Level) = (Asks::Set, b'a', Level::All);

/// Further than any of them goes that has an end.
const ALL: usize = 100;

/// One that has nothing special.
const PLAIN: Configuration = Configuration {
    name: "plain",
    about: "",
    nodes: 3,
    start: |_| {},
    repeats: true,
    keeps_at_once: true,
    reports: false,
    menu: &[GET],
    controls: &[],
    budget: NONE,
    copies: 2,
    depth: ALL,
    reaches: &[],
};

/// All of them.
pub static CONFIGURATIONS: &[Configuration] = &[
    Configuration {
        name: "steady",
        about: "one leader, all kinds of requests, and records that are dropped",
        start: |scene| scene.write(Asks::Set, b'a'),
        menu: &[
            GET, SET, DELETE, ADD, INCREMENT, SET_OTHER, GET_ALL, SET_ALL,
        ],
        budget: Budget {
            requests: 2,
            evictions: 2,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "failover",
        about: "the leader is taken for Down while it is asked",
        start: |scene| scene.write(Asks::Set, b'a'),
        menu: &[GET, SET],
        budget: Budget {
            requests: 2,
            downs: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "uncommitted",
        about: "the leader and one other have an entry that nobody has acknowledged, and two nodes are taken for Down",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let b = scene.replica(1);
            scene.write_unheard(Asks::Set, b'a', &[b]);
        },
        menu: &[GET, ADD],
        budget: Budget {
            requests: 1,
            downs: 2,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "base",
        about: "who leads next lacks what the third one has, and pulls it",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.write_unheard(Asks::Set, b'a', &[c]);
            scene.write_unheard(Asks::Set, b'b', &[c]);
        },
        menu: &[GET],
        budget: Budget {
            requests: 1,
            downs: 2,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "deposed",
        about: "one still leads that does not know that another does",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let a = scene.replica(0);
            scene.away(&[a]);
            scene.down(a);
            scene.settle();
        },
        menu: &[GET, SET, ADD],
        budget: Budget {
            requests: 2,
            downs: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "tails",
        about: "one that led has a longer order than what was committed since, and comes back",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let a = scene.replica(0);
            scene.write_unheard(Asks::Set, b'b', &[]);
            scene.write_unheard(Asks::Set, b'a', &[]);
            scene.away(&[a]);
            scene.down(a);
            scene.settle();
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
        },
        menu: &[GET, SET],
        budget: Budget {
            requests: 1,
            downs: 1,
            ticks: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "eviction",
        about: "what two have and a third has not is dropped, and the third leads",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.away(&[c]);
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
        },
        menu: &[GET],
        budget: Budget {
            requests: 1,
            downs: 2,
            evictions: 1,
            ..NONE
        },
        depth: 16,
        reaches: &[FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "evicted",
        about: "the leader has dropped what the others have, and it is deleted",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let a = scene.replica(0);
            scene.evict(a, b'a');
        },
        menu: &[GET, DELETE],
        budget: Budget {
            requests: 2,
            downs: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "deleted",
        about: "a key was deleted and its tombstone dropped, and one that has it still leads",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let (a, c) = (scene.replica(0), scene.replica(2));
            scene.away(&[c]);
            scene.write(Asks::Delete, b'a');
            scene.evict(a, b'a');
            scene.write(Asks::Delete, b'a');
            scene.away(&[]);
        },
        menu: &[GET, ADD],
        budget: Budget {
            requests: 1,
            evictions: 1,
            downs: 2,
            ..NONE
        },
        depth: 13,
        reaches: &[SHOWS, SECOND_TERM, FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "copy",
        about: "one copies what it lacks in parts, while records are written and dropped",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            scene.write(Asks::Set, b'b');
            let c = scene.replica(2);
            scene.away(&[c]);
            scene.write(Asks::Set, b'b');
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
        },
        menu: &[GET, SET, DELETE],
        budget: Budget {
            requests: 1,
            evictions: 2,
            ticks: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "copy-failover",
        about: "one copies in parts, and its source is taken for Down",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            scene.write(Asks::Set, b'b');
            let (a, c) = (scene.replica(0), scene.replica(2));
            scene.away(&[c]);
            scene.write(Asks::Set, b'b');
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
            scene.down(a);
        },
        menu: &[GET],
        budget: Budget {
            requests: 1,
            evictions: 1,
            downs: 1,
            ..NONE
        },
        depth: 14,
        reaches: &[FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "restart",
        about: "a node that has kept all starts again in the midst of it",
        start: |scene| scene.write(Asks::Set, b'a'),
        menu: &[GET, SET],
        budget: Budget {
            requests: 2,
            crashes: 1,
            ticks: 1,
            ..NONE
        },
        depth: 13,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "amnesia",
        about: "one of the two that have a write forgets all, and then a node is taken for Down",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.away(&[c]);
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
        },
        reports: true,
        menu: &[GET],
        budget: Budget {
            requests: 1,
            amnesias: 1,
            downs: 1,
            commands: 1,
            ..NONE
        },
        depth: 14,
        reaches: &[PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "amnesia-votes",
        about: "one that has forgotten all is aligned and votes again, and then another forgets",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let b = scene.replica(1);
            scene.restart(b, false);
        },
        reports: true,
        menu: &[GET],
        budget: Budget {
            requests: 1,
            amnesias: 1,
            commands: 2,
            ..NONE
        },
        depth: 16,
        reaches: &[PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "disks",
        about: "what is written is kept later, or lost with the process",
        start: |scene| scene.write(Asks::Set, b'a'),
        repeats: false,
        keeps_at_once: false,
        menu: &[SET, GET],
        budget: Budget {
            requests: 2,
            crashes: 1,
            ..NONE
        },
        depth: 16,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "disks-failover",
        about: "what is adopted is kept later, or lost with the process",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let a = scene.replica(0);
            scene.down(a);
        },
        repeats: false,
        keeps_at_once: false,
        menu: &[SET],
        budget: Budget {
            requests: 1,
            crashes: 1,
            ..NONE
        },
        depth: 16,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "disks-copy",
        about: "one copies what it lacks in parts, and what it has put is lost with the process",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let (a, c) = (scene.replica(0), scene.replica(2));
            scene.away(&[c]);
            scene.write(Asks::Set, b'b');
            scene.write(Asks::Set, b'a');
            scene.away(&[]);
            scene.down(a);
        },
        repeats: false,
        keeps_at_once: false,
        menu: &[GET],
        budget: Budget {
            requests: 1,
            evictions: 1,
            crashes: 1,
            ..NONE
        },
        depth: 14,
        reaches: &[FULL_COPY, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "disks-reset",
        about: "all is forgotten by a decision, and what is written is kept later, or lost with the process",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            scene.write_unheard(Asks::Set, b'a', &[]);
            scene.control(Control::Reset);
        },
        repeats: false,
        keeps_at_once: false,
        menu: &[SET, GET],
        budget: Budget {
            requests: 1,
            crashes: 1,
            downs: 1,
            ..NONE
        },
        depth: 11,
        reaches: &[],
        ..PLAIN
    },
    Configuration {
        name: "reset",
        about: "all is forgotten by a decision, and one hears of it late",
        start: |scene| scene.write(Asks::Set, b'a'),
        menu: &[GET, SET],
        controls: &[Control::Reset],
        budget: Budget {
            requests: 2,
            commands: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, GENERATION],
        ..PLAIN
    },
    Configuration {
        name: "reset-late",
        about: "all is forgotten by a decision of which nobody has heard, nor the next start of one that lacks a write",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.away(&[c]);
            scene.write(Asks::Set, b'a');
            scene.control(Control::Reset);
        },
        menu: &[GET, SET],
        budget: Budget {
            requests: 1,
            crashes: 1,
            ..NONE
        },
        depth: ALL,
        reaches: &[SHOWS, PART_COPY],
        ..PLAIN
    },
    Configuration {
        name: "quorum-loss",
        about: "two forget all, so that the partition is reset; the third may keep what it has if it leads",
        start: |scene| scene.write(Asks::Set, b'a'),
        menu: &[GET, SET],
        budget: Budget {
            requests: 1,
            amnesias: 2,
            ..NONE
        },
        depth: 18,
        reaches: &[SHOWS, SECOND_TERM, PART_COPY, GENERATION],
        ..PLAIN
    },
    Configuration {
        name: "seed",
        about: "two forgot all, so that the partition was reset and its leader keeps what it has, and is taken for Down",
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let (b, c) = (scene.replica(1), scene.replica(2));
            scene.restart(b, false);
            scene.restart(c, false);
        },
        menu: &[GET, SET],
        budget: Budget {
            requests: 1,
            evictions: 1,
            downs: 2,
            ..NONE
        },
        depth: 11,
        reaches: &[FULL_COPY],
        ..PLAIN
    },
    Configuration {
        name: "joint",
        about: "one replica is replaced, while something is written",
        nodes: 4,
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let a = scene.replica(0);
            scene.leave(a);
            scene.settle();
        },
        reports: true,
        menu: &[SET, GET],
        controls: &[Control::Join, Control::Finish],
        budget: Budget {
            requests: 1,
            commands: 3,
            ..NONE
        },
        depth: 18,
        reaches: &[SHOWS, PART_COPY, CHANGE],
        ..PLAIN
    },
    Configuration {
        name: "joint-failover",
        about: "one replica is replaced, both lists count, and a leader is taken for Down",
        nodes: 4,
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.leave(c);
            scene.settle();
            scene.write_unheard(Asks::Set, b'a', &[c]);
            scene.control(Control::Join);
        },
        reports: true,
        menu: &[GET],
        controls: &[Control::Finish],
        budget: Budget {
            requests: 1,
            downs: 1,
            commands: 2,
            ..NONE
        },
        depth: 11,
        reaches: &[PART_COPY, CHANGE],
        ..PLAIN
    },
    Configuration {
        name: "joint-undone",
        about: "one replica is replaced, both lists count, and that is given up, opened or not",
        nodes: 4,
        start: |scene| {
            scene.write(Asks::Set, b'a');
            let c = scene.replica(2);
            scene.leave(c);
            scene.settle();
            scene.write_unheard(Asks::Set, b'a', &[c]);
            scene.control(Control::Join);
        },
        reports: true,
        menu: &[GET],
        controls: &[Control::Undo],
        budget: Budget {
            requests: 1,
            downs: 1,
            commands: 2,
            ..NONE
        },
        depth: 9,
        reaches: &[SHOWS],
        ..PLAIN
    },
];
