//! The network: when a frame arrives, whether at all, and how often. Between two ends frames keep their order, as on a
//! connection, unless there is a storm: then they are lost, repeated and overtaken, as over connections that break and are made
//! anew.

use henge_cluster::testing::random::Random;

/// The end that is not a node: where the topology is agreed on.
pub const CONTROL: usize = 0;
/// So many ends there can be, the nodes from 1 on.
pub const ENDS: usize = 16;

/// What goes wrong with frames, of a thousand each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Are lost.
    pub lost: u64,
    /// Come twice.
    pub repeated: u64,
    /// Take any time up to `slowest_ms`, whatever was sent before.
    pub overtaken: u64,
    /// See there.
    pub slowest_ms: u64,
}

/// See the head of the file.
pub struct Network {
    random: Random,
    /// How long a frame takes.
    fastest_ms: u64,
    slowest_ms: u64,
    /// How many faults cut the way from one end to another.
    cuts: [[u8; ENDS]; ENDS],
    /// When the last frame on a way arrives.
    last: [[u64; ENDS]; ENDS],
    weather: Vec<(usize, Weather)>,
}

impl Network {
    /// One on which frames take so long.
    pub fn new(random: Random, fastest_ms: u64, slowest_ms: u64) -> Self {
        Self {
            random,
            fastest_ms,
            slowest_ms,
            cuts: [[0; ENDS]; ENDS],
            last: [[0; ENDS]; ENDS],
            weather: Vec::new(),
        }
    }

    /// A way is cut, or it is not any more.
    pub fn cut(&mut self, from: usize, to: usize, is_cut: bool) {
        let cuts = &mut self.cuts[from][to];
        *cuts = if is_cut { *cuts + 1 } else { *cuts - 1 };
    }

    /// Whether nothing gets from one end to another.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    /// A storm of this number begins.
    pub fn begin_storm(&mut self, number: usize, weather: Weather) {
        self.weather.push((number, weather));
    }

    /// It ends.
    pub fn end_storm(&mut self, number: usize) {
        self.weather.retain(|&(storm, _)| storm != number);
    }

    /// When a frame that is sent now arrives, and when it does so again; none that is lost.
    pub fn send(&mut self, now_ms: u64, from: usize, to: usize) -> [Option<u64>; 2] {
        if self.is_cut(from, to) {
            return [None; 2];
        }
        let random = &mut self.random;
        let takes = random.within(self.fastest_ms, self.slowest_ms);
        let last = &mut self.last[from][to];
        let at = (now_ms + takes).max(*last);
        let Some(&(_, weather)) = self.weather.last() else {
            *last = at;
            return [Some(at), None];
        };
        if random.happens(weather.lost) {
            return [None; 2];
        }
        let at = if random.happens(weather.overtaken) {
            now_ms + random.within(self.fastest_ms, weather.slowest_ms)
        } else {
            *last = at;
            at
        };
        let again = random.happens(weather.repeated);
        let again = again.then(|| at + random.below(weather.slowest_ms));
        [Some(at), again]
    }
}
