//! Which of several members gets a request: the better of two drawn at random, by a mean of latency that rises at once and
//! falls slowly (peak EWMA), times what is on its way there. A member that failed is suspected, and passed over while another
//! is not. Time, as what has passed since some beginning, and random numbers are arguments; nothing here knows what a member is.

use std::time::Duration;

/// How long a latency counts: after as much time, what was measured before weighs 1/e. Long enough that a pause of a
/// garbage collector is remembered beyond itself, and short enough that who is well again is believed within seconds.
const DECAY: Duration = Duration::from_secs(5);

/// What a member is taken for that was never measured: a request within a site. Were it nothing, a new member would get
/// everything until its first answer.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(1);

/// A latency below this says nothing about the member: it is the noise of a loopback.
const LEAST_LATENCY: Duration = Duration::from_micros(50);

/// How long a member is suspected after its first failure. A restart takes longer, a connection that was closed for being
/// idle is nothing.
const FIRST_SUSPICION: Duration = Duration::from_millis(100);

/// The longest suspicion. Each ends in a single request, which may cost a time-out, so it should not end often; and as long
/// a member that is back goes without work.
const LONGEST_SUSPICION: Duration = Duration::from_secs(5);

/// What is known of one member.
///
/// ```text
///            failed                  its time is over,           begin
///   well ------------> suspected -----------------------> due ---------> tried
///    ^                     ^                                                |
///    |                     +-------------------- failed, for twice as long -+
///    +---------------------------------- answered --------------------------+
/// ```
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// The mean, in seconds, as it was when it was last measured. None before that.
    latency: Option<f64>,
    measured: Duration,
    in_flight: u32,
    /// In a row.
    failures: u32,
    suspected_until: Duration,
}

impl Load {
    /// A request goes there. One of the three that follow ends it.
    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// It was answered, after so long.
    pub(crate) fn answered(&mut self, now: Duration, latency: Duration) {
        self.in_flight -= 1;
        self.failures = 0;
        self.measure(now, latency);
    }

    /// The member could not be reached, did not answer, or cannot serve.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.in_flight -= 1;
        // What was on its way together fails together, and is one failure.
        if now < self.suspected_until {
            return;
        }
        let doubled = FIRST_SUSPICION.saturating_mul(1 << self.failures.min(16));
        self.suspected_until = now + doubled.min(LONGEST_SUSPICION);
        self.failures += 1;
    }

    /// Who asked has lost interest after so long: the answer would have taken longer than that, and no more is known.
    pub(crate) fn abandoned(&mut self, now: Duration, after: Duration) {
        self.in_flight -= 1;
        let known = self.latency.unwrap_or(UNKNOWN_LATENCY.as_secs_f64());
        if after.as_secs_f64() > known {
            self.measure(now, after);
        }
    }

    /// Whether it failed lately, and has not been heard of since. When the time of that is over, one request at a time goes
    /// there to find out.
    pub(crate) fn is_suspected(&self, now: Duration) -> bool {
        self.failures > 0 && (now < self.suspected_until || self.in_flight > 0)
    }

    fn measure(&mut self, now: Duration, latency: Duration) {
        let latency = latency.max(LEAST_LATENCY).as_secs_f64();
        self.latency = Some(match self.latency {
            Some(mean) if latency < mean => {
                let kept = self.kept(now);
                mean * kept + latency * (1.0 - kept)
            }
            _ => latency,
        });
        self.measured = now;
    }

    /// How much of the mean is left by now.
    fn kept(&self, now: Duration) -> f64 {
        let since = now.saturating_sub(self.measured).as_secs_f64();
        (-since / DECAY.as_secs_f64()).exp()
    }

    /// Less is better. The mean falls with time also when nothing is measured, so that who was slow is tried again.
    fn score(&self, now: Duration) -> f64 {
        let mean = match self.latency {
            Some(mean) => (mean * self.kept(now)).max(LEAST_LATENCY.as_secs_f64()),
            None => UNKNOWN_LATENCY.as_secs_f64(),
        };
        mean * f64::from(self.in_flight + 1)
    }
}

/// The place of the member that should get a request: of two that are drawn the one with the better score. Those that are
/// suspected are drawn only where all are. None if there are no members.
pub(crate) fn choose(loads: &[Load], now: Duration, random: u64) -> Option<usize> {
    let mut drawn: Vec<usize> = (0..loads.len())
        .filter(|place| !loads[*place].is_suspected(now))
        .collect();
    if drawn.is_empty() {
        drawn.extend(0..loads.len());
    }
    let (first, second) = two_of(drawn.len(), random)?;
    let (first, second) = (drawn[first], drawn[second]);
    let is_better = loads[second].score(now) < loads[first].score(now);
    Some(if is_better { second } else { first })
}

/// Two different numbers below this, or the same one twice if there is no other.
fn two_of(count: usize, random: u64) -> Option<(usize, usize)> {
    let below = |random: u64, count: usize| ((random * count as u64) >> 32) as usize;
    let others = count.checked_sub(1)?;
    let first = below(random >> 32, count);
    let second = below(random & u64::from(u32::MAX), others.max(1));
    // Counted from the one behind the first.
    Some((first, (first + usize::from(others > 0) + second) % count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A member that answered once, at the beginning.
    fn measured(latency: Duration) -> Load {
        let mut load = Load::default();
        load.begin();
        load.answered(Duration::ZERO, latency);
        load
    }

    fn busy(mut load: Load, requests: u32) -> Load {
        for _ in 0..requests {
            load.begin();
        }
        load
    }

    fn failing(times: u32) -> Load {
        let mut load = Load::default();
        for _ in 0..times {
            load.begin();
            load.failed(load.suspected_until);
        }
        load
    }

    #[test]
    fn of_two_the_better_is_chosen() {
        let table = [
            // Latency.
            (measured(ms(2)), measured(ms(9)), 0, 0),
            // What is on its way.
            (busy(measured(ms(2)), 5), measured(ms(9)), 0, 1),
            (busy(measured(ms(2)), 3), measured(ms(9)), 0, 0),
            // Who is new is neither better than all nor worse than all.
            (Load::default(), measured(ms(9)), 0, 0),
            (Load::default(), measured(Duration::ZERO), 0, 1),
            // Who was slow is forgiven with time, and who is fast is no faster for being idle.
            (measured(ms(9)), measured(SECOND), 0, 0),
            (busy(measured(Duration::ZERO), 1), measured(SECOND), 300, 1),
            // A suspicion outweighs it all, for its time.
            (failing(1), busy(measured(SECOND), 9), 0, 1),
            (failing(1), busy(measured(SECOND), 9), 1, 0),
            (busy(failing(1), 1), busy(measured(SECOND), 9), 1, 1),
            (failing(9), busy(measured(SECOND), 9), 4, 1),
        ];
        for (first, second, seconds, expected) in table {
            let now = SECOND * seconds;
            let loads = [first, second];
            for random in [0, 1, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0] {
                assert_eq!(choose(&loads, now, random), Some(expected), "{loads:?}");
            }
        }
        assert_eq!(choose(&[], SECOND, 7), None);
        assert_eq!(choose(&[failing(3)], SECOND, 7), Some(0), "all there is");
    }

    #[test]
    fn suspicions_grow_and_end() {
        let mut load = Load::default();
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let now = load.suspected_until;
            load.begin();
            load.failed(now);
            assert_eq!(load.suspected_until, now + ms(expected));
            assert!(load.is_suspected(now));
            assert!(!load.is_suspected(load.suspected_until), "it is due");
        }
        // Two that fail together are one failure.
        let mut load = Load::default();
        for _ in 0..2 {
            load.begin();
        }
        load.failed(ms(1));
        load.failed(ms(2));
        assert_eq!((load.failures, load.in_flight), (1, 0));
        // An answer clears it.
        load.begin();
        load.answered(ms(3), ms(1));
        assert!(!load.is_suspected(ms(3)));
    }

    #[test]
    fn the_mean_rises_at_once_and_falls_slowly() {
        let mut load = measured(ms(10));
        let step = |load: &mut Load, now, latency| {
            load.begin();
            load.answered(now, latency);
            load.latency.expect("it is measured") * 1000.0
        };
        assert!((step(&mut load, ms(0), ms(80)) - 80.0).abs() < 0.001);
        assert!((step(&mut load, ms(5), ms(10)) - 79.93).abs() < 0.01);
        let fallen = step(&mut load, ms(5005), ms(10));
        assert!((fallen - 35.73).abs() < 0.01, "{fallen}");
        // What was given up says that it takes at least as long, and never that it is fast.
        load.begin();
        load.abandoned(ms(5005), ms(1));
        assert!((load.latency.expect("measured") * 1000.0 - fallen).abs() < 0.001);
        load.begin();
        load.abandoned(ms(5005), ms(500));
        assert!((load.latency.expect("measured") - 0.5).abs() < 0.001);
        assert_eq!(load.in_flight, 0);
    }

    #[test]
    fn two_are_drawn_evenly() {
        assert_eq!(two_of(0, 0), None);
        let mut random = Random(3);
        for count in 1..9 {
            let mut drawn = vec![0; count];
            for _ in 0..1000 * count {
                let (first, second) = two_of(count, random.next()).expect("there are some");
                assert!(count == 1 || first != second);
                drawn[first] += 1;
                drawn[second] += 1;
            }
            for times in drawn {
                assert!((1800..2200).contains(&times), "{count}: {times}");
            }
        }
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    /// What a member does with its requests.
    #[derive(Clone, Copy)]
    enum Does {
        Answer(Duration),
        /// Fails, after so long.
        Fail(Duration),
    }

    /// Five members, one request each millisecond; returns how many each got while it went on.
    fn simulate(
        loads: &mut [Load; 5],
        does: [Does; 5],
        clock: &mut Duration,
        lasting: Duration,
        random: &mut Random,
    ) -> [u32; 5] {
        let mut got = [0; 5];
        // When it ends, and where.
        let mut under_way: Vec<(Duration, usize, Does)> = Vec::new();
        let end = *clock + lasting;
        while *clock < end || !under_way.is_empty() {
            under_way.sort_by_key(|(ends, ..)| std::cmp::Reverse(*ends));
            while let Some((ends, place, does)) = under_way.pop_if(|(ends, ..)| *ends <= *clock) {
                match does {
                    Does::Answer(latency) => loads[place].answered(ends, latency),
                    Does::Fail(_) => loads[place].failed(ends),
                }
            }
            if *clock < end {
                let place = choose(loads, *clock, random.next()).expect("there are members");
                loads[place].begin();
                got[place] += 1;
                // Half to one and a half of what it takes on the mean.
                let part = 0.5 + (random.next() >> 11) as f64 / (1u64 << 53) as f64;
                let (Does::Answer(mean) | Does::Fail(mean)) = does[place];
                let taken = mean.mul_f64(part);
                let does = match does[place] {
                    Does::Answer(_) => Does::Answer(taken),
                    Does::Fail(_) => Does::Fail(taken),
                };
                under_way.push((*clock + taken, place, does));
            }
            *clock += ms(1);
        }
        got
    }

    #[test]
    fn a_member_that_is_slow_or_fails_gets_little_until_it_is_well_again() {
        let well = Does::Answer(ms(3));
        let table = [
            // Of ten seconds and 10,000 requests, where an even share is 2,000.
            ("ten times as slow", Does::Answer(ms(30)), 300),
            ("a hundred times as slow", Does::Answer(ms(300)), 100),
            ("refuses connections", Does::Fail(Duration::ZERO), 20),
            ("does not answer", Does::Fail(SECOND), 250),
        ];
        for (what, does, at_most) in table {
            for seed in 1..=5 {
                let mut random = Random(seed);
                let mut loads: [Load; 5] = Default::default();
                let mut clock = Duration::ZERO;
                let mut run = |does: Does, seconds: u32, random: &mut Random| {
                    let does = [well, well, does, well, well];
                    simulate(&mut loads, does, &mut clock, SECOND * seconds, random)
                };
                for got in run(well, 10, &mut random) {
                    assert!((1500..2500).contains(&got), "{what}, seed {seed}: {got}");
                }
                let got = run(does, 10, &mut random);
                assert!(got[2] <= at_most, "{what}, seed {seed}: {got:?}");
                assert!(got[2] > 0, "{what}, seed {seed}: it is tried now and then");
                // Well again, and believed after a while.
                run(well, 30, &mut random);
                let got = run(well, 10, &mut random);
                assert!(
                    (1500..2500).contains(&got[2]),
                    "{what}, seed {seed}: {got:?}"
                );
            }
        }
    }
}
