//! A few members on a network in which a test says what is lost, in a time that it says.

use super::*;
use crate::testing::random::Random;
use proptest::prelude::*;

/// How long a datagram takes.
const WAY_MS: u64 = 1;

struct Lab {
    now_ms: u64,
    nodes: Vec<Node>,
    /// What is on its way, by when it arrives, and its number: whence, where, what.
    sent: BTreeMap<(u64, u64), (usize, SocketAddr, Vec<u8>)>,
    number: u64,
    /// Ways on which nothing arrives.
    cuts: Vec<(usize, usize)>,
    /// For so long after a pause a node reads its socket, before it looks at its clock: a runtime takes what is ready in any order, and
    /// as long as there is more of it.
    reading_ms: u64,
}

struct Node {
    peer: Peer,
    gossip: Option<Gossip>,
    /// Until when it does nothing, and what waits in its socket.
    paused_ms: u64,
    socket: Vec<Vec<u8>>,
    /// What it was told, and when.
    news: Vec<(u64, Output)>,
}

fn peer(number: usize, incarnation: u64) -> Peer {
    let address = format!("10.0.0.{number}:8080");
    Peer {
        instance: 1_000 + number as u64,
        incarnation,
        address: address.parse().expect("an address"),
    }
}

impl Lab {
    /// Members that all know of each other.
    fn of(count: usize) -> Self {
        let mut lab = Self {
            now_ms: 1_000,
            nodes: Vec::new(),
            sent: BTreeMap::new(),
            number: 0,
            cuts: Vec::new(),
            reading_ms: 0,
        };
        for number in 0..count {
            lab.nodes.push(Node {
                peer: peer(number, 1),
                gossip: None,
                paused_ms: 0,
                socket: Vec::new(),
                news: Vec::new(),
            });
            lab.start(number, peer(number, 1));
        }
        lab.run(3_000);
        for number in 0..count {
            assert_eq!(lab.healths(number), vec![Health::Alive; count - 1]);
            lab.nodes[number].news.clear();
        }
        lab
    }

    fn start(&mut self, number: usize, peer: Peer) {
        let mut gossip = Gossip::new(peer, 7 * peer.instance + peer.incarnation, self.now_ms);
        for other in &self.nodes[..number.max(1)] {
            gossip.announce(other.peer.address);
        }
        self.nodes[number].peer = peer;
        self.nodes[number].gossip = Some(gossip);
        self.nodes[number].news.clear();
        self.drain(number);
    }

    fn gossip(&mut self, number: usize) -> &mut Gossip {
        let gossip = self.nodes[number].gossip.as_mut();
        gossip.expect("it runs")
    }

    fn drain(&mut self, from: usize) {
        while let Some(output) = self.gossip(from).poll() {
            if let Output::Send(to, bytes) = output {
                assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
                self.number += 1;
                let arrives = (self.now_ms + WAY_MS, self.number);
                self.sent.insert(arrives, (from, to, bytes));
            } else {
                let now_ms = self.now_ms;
                self.nodes[from].news.push((now_ms, output));
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            let now_ms = self.now_ms;
            while let Some(first) = self.sent.first_entry()
                && first.key().0 <= now_ms
            {
                let (from, to, bytes) = first.remove();
                let place = self.nodes.iter().position(|node| node.peer.address == to);
                if let Some(place) = place
                    && !self.cuts.contains(&(from, place))
                {
                    self.nodes[place].socket.push(bytes);
                }
            }
            for number in 0..self.nodes.len() {
                let node = &mut self.nodes[number];
                if node.gossip.is_none() {
                    node.socket.clear();
                }
                if node.gossip.is_none() || node.paused_ms > now_ms {
                    continue;
                }
                let is_reading = node.paused_ms + self.reading_ms > now_ms;
                let deadline_ms = self.gossip(number).next_deadline_ms();
                if !is_reading && deadline_ms.is_some_and(|ms| ms <= now_ms) {
                    self.gossip(number).handle_time(now_ms);
                }
                for bytes in std::mem::take(&mut self.nodes[number].socket) {
                    let handled = self.gossip(number).handle_datagram(now_ms, &bytes);
                    assert_eq!(handled, Ok(()));
                }
                self.drain(number);
            }
        }
    }

    fn healths(&self, number: usize) -> Vec<Health> {
        let gossip = self.nodes[number].gossip.as_ref();
        let members = gossip.expect("it runs").members();
        members.map(|(_, health, _)| health).collect()
    }

    /// After how long a node took another for down; it has to have done so once.
    fn down_after(&self, number: usize, whom: usize, since_ms: u64) -> u64 {
        let whom = self.nodes[whom].peer;
        let news = self.nodes[number].news.iter();
        let mut downs = news.filter(|(_, news)| *news == Output::Down(whom));
        let (at_ms, _) = downs.next().expect("it is down");
        assert_eq!(downs.next(), None);
        at_ms - since_ms
    }

    fn has_news(&self, number: usize, wanted: &Output) -> bool {
        let mut news = self.nodes[number].news.iter();
        news.any(|(_, news)| news == wanted)
    }
}

#[test]
fn a_silent_machine_is_down_soon() {
    let mut slowest = 0;
    // At different places of all turns.
    for offset_ms in (0..1_000).step_by(37) {
        let mut lab = Lab::of(3);
        lab.run(offset_ms);
        let since_ms = lab.now_ms;
        lab.nodes[1].gossip = None;
        lab.run(4_000);
        for number in [0, 2] {
            slowest = slowest.max(lab.down_after(number, 1, since_ms));
        }
    }
    println!("down after {slowest} ms at most");
    assert!((1_400..=2_100).contains(&slowest), "{slowest}");
}

#[test]
fn a_refused_connection_is_faster() {
    for by in [0, 2] {
        let mut lab = Lab::of(3);
        lab.nodes[1].gossip = None;
        let since_ms = lab.now_ms;
        let now_ms = lab.now_ms;
        lab.gossip(by).suspect(now_ms, 1_001);
        lab.run(1_000);
        for number in [0, 2] {
            assert!(lab.down_after(number, 1, since_ms) <= 1_000);
        }
    }
}

#[test]
fn one_that_lives_refutes_a_refused_connection() {
    for count in [2, 3, 5] {
        let mut lab = Lab::of(count);
        let now_ms = lab.now_ms;
        lab.gossip(0).suspect(now_ms, 1_001);
        // Nor does it help to say it again and again.
        for _ in 0..10 {
            lab.run(50);
            assert_eq!(lab.healths(0)[0], Health::Alive);
            let now_ms = lab.now_ms;
            lab.gossip(0).suspect(now_ms, 1_001);
        }
        lab.run(3_000);
        for number in 0..count {
            assert_eq!(lab.healths(number), vec![Health::Alive; count - 1]);
            assert!(!lab.has_news(number, &Output::Down(peer(1, 1))));
        }
    }
}

#[test]
fn a_pause_is_nothing() {
    for (count, reading_ms) in [(2, 0), (3, 0), (7, 0), (2, 20), (3, 20), (7, 20)] {
        let mut lab = Lab::of(count);
        lab.reading_ms = reading_ms;
        for turn in 0..40 {
            let paused_ms = lab.now_ms + 300;
            lab.nodes[turn % count].paused_ms = paused_ms;
            lab.run(300 + 13 * turn as u64);
        }
        lab.run(1_000);
        for node in &lab.nodes {
            assert_eq!(node.news, []);
        }
    }
}

#[test]
fn who_was_away_comes_back() {
    for (count, reading_ms) in [(2, 0), (3, 0), (6, 0), (2, 20), (3, 20), (6, 20)] {
        let mut lab = Lab::of(count);
        lab.reading_ms = reading_ms;
        lab.nodes[1].paused_ms = lab.now_ms + 10_000;
        lab.run(10_000);
        for number in (0..count).filter(|&number| number != 1) {
            assert!(lab.has_news(number, &Output::Down(peer(1, 1))));
        }
        lab.run(2_500);
        for number in 0..count {
            assert_eq!(lab.healths(number), vec![Health::Alive; count - 1]);
            let downs = lab.nodes[number].news.iter();
            let downs = downs.filter(|(_, news)| matches!(news, Output::Down(_)));
            // Who came back told nobody that the others were down.
            assert_eq!(downs.count(), usize::from(number != 1));
        }
    }
}

/// One that gets its turn late each time still finds out who is silent.
#[test]
fn who_is_always_late_goes_on() {
    let mut lab = Lab::of(3);
    lab.nodes[2].gossip = None;
    for _ in 0..100 {
        lab.nodes[0].paused_ms = lab.now_ms + 150;
        lab.run(150);
    }
    assert!(lab.has_news(0, &Output::Down(peer(2, 1))));
}

#[test]
fn who_was_cut_off_tells_nobody_that_all_are_down() {
    for (count, alone) in [(3, 0), (3, 2), (5, 1)] {
        let mut lab = Lab::of(count);
        let others = (0..count).filter(|&number| number != alone);
        let others: Vec<usize> = others.collect();
        for &other in &others {
            lab.cuts.extend([(alone, other), (other, alone)]);
        }
        lab.run(8_000);
        assert_eq!(lab.healths(alone), vec![Health::Down; count - 1]);
        lab.cuts.clear();
        lab.run(4_000);
        for number in 0..count {
            assert_eq!(lab.healths(number), vec![Health::Alive; count - 1]);
        }
        for &number in &others {
            let downs = lab.nodes[number].news.iter();
            let mut downs = downs.filter(|(_, news)| matches!(news, Output::Down(_)));
            assert_eq!(
                downs.next().map(|(_, news)| news),
                Some(&Output::Down(peer(alone, 1)))
            );
            assert_eq!(downs.next(), None);
        }
    }
}

#[test]
fn two_halves_find_each_other() {
    let mut lab = Lab::of(6);
    for one in 0..3 {
        for other in 3..6 {
            lab.cuts.extend([(one, other), (other, one)]);
        }
    }
    lab.run(10_000);
    for number in 0..6 {
        let downs = lab
            .healths(number)
            .iter()
            .filter(|&&health| health == Health::Down)
            .count();
        assert_eq!(downs, 3);
    }
    lab.cuts.clear();
    lab.run(8_000);
    for number in 0..6 {
        assert_eq!(lab.healths(number), vec![Health::Alive; 5]);
    }
}

#[test]
fn a_way_that_is_cut_is_nobodys_end() {
    for cuts in [vec![(0, 1)], vec![(0, 1), (1, 0)]] {
        let mut lab = Lab::of(3);
        lab.cuts = cuts;
        lab.run(30_000);
        for number in 0..3 {
            assert_eq!(lab.healths(number), vec![Health::Alive; 2]);
            for whom in 0..3 {
                assert!(!lab.has_news(number, &Output::Down(peer(whom, 1))));
            }
        }
    }
}

#[test]
fn a_new_start_replaces_the_old_one_at_once() {
    let mut lab = Lab::of(3);
    lab.nodes[1].gossip = None;
    lab.run(100);
    let started = peer(1, 2);
    lab.start(1, started);
    lab.run(600);
    for number in [0, 2] {
        assert!(lab.has_news(number, &Output::Alive(started)));
        assert!(!lab.has_news(number, &Output::Down(peer(1, 1))));
        assert_eq!(lab.healths(number), vec![Health::Alive; 2]);
    }
    assert_eq!(lab.healths(1), vec![Health::Alive; 2]);
}

#[test]
fn it_may_come_back_elsewhere_or_another_one_may_come_there() {
    let mut lab = Lab::of(3);
    lab.nodes[1].gossip = None;
    let elsewhere = Peer {
        address: peer(77, 0).address,
        ..peer(1, 2)
    };
    lab.start(1, elsewhere);
    lab.run(600);
    for number in [0, 2] {
        assert!(lab.has_news(number, &Output::Alive(elsewhere)));
    }
    lab.nodes[1].gossip = None;
    let another = Peer {
        instance: 5,
        incarnation: 1,
        ..elsewhere
    };
    let since_ms = lab.now_ms;
    lab.start(1, another);
    lab.run(2_000);
    for number in [0, 2] {
        assert!(lab.has_news(number, &Output::Alive(another)));
        let down = Output::Down(elsewhere);
        let news = lab.nodes[number]
            .news
            .iter()
            .find(|(_, news)| *news == down);
        let (at_ms, _) = news.expect("its predecessor is down");
        assert!(at_ms - since_ms < 1_200);
    }
}

#[test]
fn who_leaves_is_down_at_once() {
    let mut lab = Lab::of(4);
    let since_ms = lab.now_ms;
    lab.gossip(1).leave();
    lab.drain(1);
    assert_eq!(lab.gossip(1).next_deadline_ms(), None);
    lab.run(500);
    for number in [0, 2, 3] {
        assert!(lab.down_after(number, 1, since_ms) <= 450);
        lab.gossip(number).forget(1_001);
        assert_eq!(lab.healths(number), vec![Health::Alive; 2]);
    }
}

#[test]
fn loads_arrive_and_are_renewed() {
    let mut lab = Lab::of(3);
    for turn in 1..4 {
        for number in 0..3 {
            let load = Load {
                operations_per_second: turn * 10 + number as u32,
                memory_bytes: 1 << 40,
                queue_bytes: 0,
            };
            let now_ms = lab.now_ms;
            lab.gossip(number).set_load(now_ms, load);
        }
        lab.run(3_500);
        let gossip = lab.nodes[0].gossip.as_ref().expect("it runs");
        let loads = gossip
            .members()
            .map(|(_, _, load)| load.map(|load| load.operations_per_second));
        let loads: Vec<_> = loads.collect();
        assert_eq!(loads, [Some(turn * 10 + 1), Some(turn * 10 + 2)]);
    }
}

/// A zombie: an earlier start of a member that is there again.
#[test]
fn an_earlier_start_is_not_heard() {
    let mut lab = Lab::of(3);
    let old = lab.nodes[1].gossip.take();
    lab.nodes[1].gossip = None;
    lab.start(1, peer(1, 2));
    lab.run(1_000);
    lab.nodes.push(Node {
        peer: peer(1, 1),
        gossip: old,
        paused_ms: 0,
        socket: Vec::new(),
        news: Vec::new(),
    });
    for node in &mut lab.nodes {
        node.news.clear();
    }
    let before = lab.number;
    lab.run(5_000);
    for number in [0, 2] {
        assert_eq!(lab.nodes[number].news, []);
        assert_eq!(lab.healths(number), vec![Health::Alive; 2]);
    }
    // It does not come back as often as it is told that it is down.
    assert!(lab.number - before < 2_000, "{}", lab.number - before);
}

/// A datagram of each kind that members send, changed anywhere.
#[test]
fn what_somebody_made_up_is_harmless() {
    let mut random = Random::new(1, 0);
    let mut lab = Lab::of(3);
    let mut heard = Vec::new();
    for _ in 0..3_000 {
        lab.run(1);
        heard.extend(lab.sent.values().map(|(_, _, bytes)| bytes.clone()));
    }
    assert!(heard.len() > 50);
    for _ in 0..20_000 {
        let mut bytes = random.of(&heard).clone();
        for _ in 0..random.within(1, 3) {
            let place = random.place(bytes.len());
            bytes[place] = random.next() as u8;
        }
        bytes.truncate(random.within(0, bytes.len() as u64 * 4) as usize);
        let now_ms = lab.now_ms;
        let _ = lab.gossip(0).handle_datagram(now_ms, &bytes);
        while lab.gossip(0).poll().is_some() {}
    }
    for _ in 0..1_000 {
        let now_ms = lab.now_ms + 100;
        lab.now_ms = now_ms;
        lab.gossip(0).handle_time(now_ms);
        while lab.gossip(0).poll().is_some() {}
    }
}

proptest! {
    #[test]
    fn garbage_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut gossip = Gossip::new(peer(1, 1), 1, 0);
        prop_assert!(gossip.handle_datagram(0, &bytes).is_err());
        prop_assert_eq!(gossip.members().count(), 0);
        prop_assert_eq!(gossip.poll(), None);
    }
}
